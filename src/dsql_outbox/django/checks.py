"""The system checks of the app; ``manage.py check --database ALIAS`` looks at the tables too."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.db.utils import DatabaseError

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.schema.comparison import check

from .apps import LABEL
from .databases import VENDORS, database_of
from .settings import outbox_settings


@register(Tags.compatibility)
def check_settings(**_: object) -> list[CheckMessage]:
    """Check the settings of the app, and those of its databases."""
    try:
        given = outbox_settings()
    except SettingsError as error:
        return [Error(str(error), id="outbox.E001")]
    return [message for alias in given.databases for message in _of_settings(alias)]


def _of_settings(alias: str) -> Iterator[CheckMessage]:
    connection: Any = connections[alias]
    settings = connection.settings_dict
    if connection.vendor not in VENDORS:
        yield Error(
            f"The database {alias} is of {settings['ENGINE']}, and the outbox needs PostgreSQL or "
            "Aurora DSQL.",
            hint='Name another alias in DSQL_OUTBOX["DATABASES"].',
            id="outbox.E002",
        )
        return
    try:
        database_of(alias)
    except (SettingsError, ImportError) as error:
        yield Error(f"The database {alias}: {error}.", id="outbox.E003")
    if settings["ATOMIC_REQUESTS"]:
        yield Warning(
            f"ATOMIC_REQUESTS of the database {alias} begins a transaction for each request, so "
            "views can't call transact.",
            hint="Views with transact need @transaction.non_atomic_requests. If none has it, "
            "silence this check.",
            id="outbox.W001",
        )
    if not settings["AUTOCOMMIT"]:
        yield Warning(
            f"AUTOCOMMIT of the database {alias} is off, so transact is refused there.",
            id="outbox.W002",
        )


@register(Tags.database)
def check_tables(databases: Sequence[str] | None = None, **_: object) -> list[CheckMessage]:
    """Check the tables in the named databases, if they are there or `migrate` has made them.

    They are warnings, and none before the first `migrate`, since that asks before it makes them.
    """
    try:
        mine = [alias for alias in outbox_settings().databases if alias in (databases or ())]
    except SettingsError:  # `check_settings` reports it
        return []
    return [message for alias in mine for message in _of_tables(alias)]


def _of_tables(alias: str) -> Iterator[CheckMessage]:
    try:
        tables = outbox_settings().tables
        drifts = check(database_of(alias), tables=tables)
        if any(
            (each.difference, each.part) == ("missing", "schema") for each in drifts
        ) and not _has_migrated(alias):
            return
    except (SettingsError, ImportError):
        return
    except (psycopg.Error, DatabaseError) as error:
        yield Warning(
            f"The outbox in the database {alias} could not be checked: {type(error).__name__}.",
            id="outbox.W004",
        )
        return
    option = " --inbox" if tables == "inbox" else ""
    for drift in drifts:
        if not drift.is_note:
            yield Warning(
                f"The outbox in the database {alias}: {drift.text}.",
                hint="Run manage.py migrate outbox. If it has run, manage.py outbox schema apply"
                f"{option}.",
                id="outbox.W003",
            )


def _has_migrated(alias: str) -> bool:
    applied = MigrationRecorder(connections[alias]).applied_migrations()
    return any(app == LABEL for app, _ in applied)
