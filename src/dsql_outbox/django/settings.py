"""The settings of the app: ``DSQL_OUTBOX`` in the settings of a project."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.schema.migrator import require_shards
from dsql_outbox.schema.tables import TableSet
from dsql_outbox.writer.settings import WriterSettings
from dsql_outbox.writer.tuned_settings import TunedSettings

_NAME: Final = "DSQL_OUTBOX"
_KEYS: Final = ("DATABASES", "SCHEMA", "SHARDS", "TABLES", "WRITER")

UNKEPT: Final = TunedSettings(max_idle=0)
"""Django has the connections. One of the writer's would keep a test database from being dropped."""


@dataclass(frozen=True, kw_only=True)
class OutboxSettings:
    """The settings of the app, checked."""

    databases: tuple[str, ...] = (DEFAULT_DB_ALIAS,)
    schema: str = DEFAULT_SCHEMA
    shards: int | None = None
    tables: TableSet = "all"
    writer: WriterSettings = UNKEPT


def outbox_settings() -> OutboxSettings:
    """Return the settings. Raises `SettingsError` for an unknown or invalid one."""
    given: object = getattr(settings, _NAME, {})
    if not isinstance(given, Mapping):
        raise SettingsError(f"{_NAME} is a dict, not {type(given).__name__}: {_NAME} = {{..}}")
    found = cast("Mapping[str, Any]", given)
    if unknown := found.keys() - _KEYS:
        names = ", ".join(sorted(map(str, unknown)))
        raise SettingsError(f"{_NAME} has no setting {names}: it has {', '.join(_KEYS)}")
    made = OutboxSettings()
    if "DATABASES" in found:
        made = replace(made, databases=_aliases(found["DATABASES"]))
    if "SCHEMA" in found:
        made = replace(made, schema=_schema(found["SCHEMA"]))
    if "TABLES" in found:
        made = replace(made, tables=found["TABLES"])
    if found.get("SHARDS") is not None:
        made = replace(made, shards=_shards(found["SHARDS"]))
    require_shards(made.shards, made.tables)
    if "WRITER" in found:
        made = replace(made, writer=_writer_settings(found["WRITER"]))
    return made


def _aliases(given: Any) -> tuple[str, ...]:
    names = list(cast("list[Any]", given)) if isinstance(given, (list, tuple)) else []
    if not names or not all(isinstance(alias, str) for alias in names):
        raise SettingsError(
            f'{_NAME}["DATABASES"] is a list of one alias or more: ["{DEFAULT_DB_ALIAS}"]'
        )
    aliases = tuple(dict.fromkeys(names))
    for alias in aliases:
        if alias not in settings.DATABASES:
            raise SettingsError(
                f'{_NAME}["DATABASES"] names {alias}, which DATABASES does not have'
            )
    return aliases


def _schema(given: Any) -> str:
    if not isinstance(given, str):
        raise SettingsError(f'{_NAME}["SCHEMA"] is a str, not {type(given).__name__}')
    return given


def _shards(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise SettingsError(f'{_NAME}["SHARDS"] is a whole number, not {type(given).__name__}')
    return given


def _writer_settings(given: Any) -> WriterSettings:
    if not isinstance(given, Mapping):
        raise SettingsError(
            f'{_NAME}["WRITER"] is a dict of the arguments of WriterSettings, '
            f"not {type(given).__name__}"
        )
    found = cast("Mapping[str, Any]", given)
    known = {field.name for field in fields(WriterSettings)}
    if unknown := found.keys() - known:
        names = ", ".join(sorted(map(str, unknown)))
        raise SettingsError(f'{_NAME}["WRITER"]: WriterSettings has no {names}')
    made = replace(UNKEPT, **found)
    # A ring uses a connection that is kept.
    return replace(made, max_idle=None) if made.doorbell else made
