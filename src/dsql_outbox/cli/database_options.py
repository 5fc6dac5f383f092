"""The options that name a database, and how a command opens it."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from click.core import ParameterSource

from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA, Database, used_by
from dsql_outbox.outbox.errors import SchemaError
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.outbox.settings import is_unicode
from dsql_outbox.schema.commands import grant_command
from dsql_outbox.schema.migrator import apply
from dsql_outbox.schema.missing_tables import find_missing
from dsql_outbox.schema.roles import Duty, lacking_rights

from .logs import logs_on_stderr
from .options import Command, log_options
from .output import occupy_standard
from .signals import interruptible

_EMBEDDED: Final = "embedded:"
_TIMEOUT: Final = 5.0  # seconds to look at the rights of a role


@dataclass(frozen=True)
class GivenDatabase:
    """The database of the framework that runs the command, in place of the environment's."""

    database: str = field(repr=False)
    schema: str


def _given(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Return what the framework gives, unless the option was typed."""
    given = context.find_object(GivenDatabase)
    name = str(option.name)
    if given is None or context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        return value
    found: str = getattr(given, name)
    return found


schema_option: Final = click.option(
    "--schema",
    callback=_given,
    envvar="DSQL_OUTBOX_SCHEMA",
    default=DEFAULT_SCHEMA,
    show_envvar=True,
    show_default=True,
    metavar="NAME",
    help="The database schema that holds the tables.",
)


def database_options(command: Command) -> Command:
    """Add the options --database and --schema, parameters `database` and `schema`."""
    return click.option(
        "--database",
        callback=_given,
        envvar="DSQL_OUTBOX_DATABASE",
        show_envvar=True,
        metavar="URL",
        help="postgresql://.., dsql://ROLE@ENDPOINT/postgres (Aurora DSQL), "
        "embedded:FOLDER (a PostgreSQL of its own, kept in FOLDER) or embedded: (for one command).",
    )(schema_option(command))


def with_database(
    advice: str | None = None,
    *,
    duty: Duty | None = None,
    logs: bool = False,
    log_flags: bool = False,
    bare: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --database and --schema, and call the command with the open `Database`, `database`.

    `advice` is the line that a signal prints; a command without one catches signals itself. `duty`
    is that of its role: the error for a missing right names the command that grants it. With
    `logs`, warnings are shown on standard error; with `log_flags`, --verbose and --log-format say
    what is shown and how, and the command gets `log_format`. With `bare`, as for a command that
    reports missing tables, those of ``embedded:`` are not created either.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)  # also the options that the command has already
        def run(*, database: str | None, schema: str, **options: Any) -> None:
            occupy_standard()
            with ExitStack() as stack:
                if advice is not None:
                    stack.enter_context(interruptible(advice))
                # Before the database is opened: in JSON its error is a record, too.
                if logs or log_flags:
                    verbose, form = options.pop("verbose", 0), options.get("log_format", "text")
                    stack.enter_context(logs_on_stderr(verbose=verbose, log_format=form))
                opening = open_bare_database if bare else open_database
                opened = stack.enter_context(opening(database, schema))
                opened = used_by(_part(duty), opened)
                try:
                    command(database=opened, **options)
                except psycopg.errors.InsufficientPrivilege as error:
                    if duty is None or (remedy := grant_for(opened, duty)) is None:
                        raise
                    raise click.ClickException(f"{error_line(error)}: {remedy}") from error
                except SchemaError as error:
                    raise told_in_full(opened, error) from error

        return database_options(log_options(run) if log_flags else run)

    return decorate


def _part(duty: Duty | None) -> str:
    """After whom the sessions of the command are named, in ``pg_stat_activity``."""
    if duty in {"writer", "publisher"}:
        return duty
    context = click.get_current_context()
    return f"operator {context.command_path.partition(' ')[2] or context.info_name}"


def grant_for(database: Database, duty: Duty) -> str | None:
    """The advice to grant the rights that the role of the database lacks for a duty, if any."""
    with suppress(psycopg.Error), database.connect(timeout=_TIMEOUT) as connection:
        user = connection.info.user
        lacking = lacking_rights(connection, database.schema, user)
        if lacking.get(duty):
            command = grant_command(database.schema, {duty: user})
            return f"let the owner of the tables run `{command}`"
    return None


def told_in_full(database: Database, error: SchemaError) -> SchemaError:
    """An error of the database about a missing table, which says what that means if it is known."""
    if isinstance(error.__cause__, psycopg.Error):
        with suppress(psycopg.Error), database.connect(timeout=_TIMEOUT) as connection:
            if missing := find_missing(connection, database):
                return SchemaError(str(missing))
    return error


@contextmanager
def open_database(url: str | None, schema: str) -> Generator[Database]:
    """Open the database at `url`, during the block.

    For ``embedded:``, start a PostgreSQL server, create the tables, and stop the
    server at the end of the block.

    Raises `click.UsageError` without a URL, `SettingsError` for an invalid one,
    and `MissingExtra` when no embedded server is installed.
    """
    with open_bare_database(url, schema) as database:
        if _is_embedded(url):
            apply(database)
        yield database


@contextmanager
def open_bare_database(url: str | None, schema: str) -> Generator[Database]:
    """Open the database as `open_database` does, but never create tables."""
    with database_address(url) as address:
        yield Database(address, schema=schema)


@contextmanager
def database_address(url: str | None) -> Generator[str]:
    """Yield the URL of the database; for ``embedded:``, of a server that runs during the block.

    Raises as `open_database` does.
    """
    if not url:
        raise click.UsageError("no database: give --database URL or set DSQL_OUTBOX_DATABASE")
    if not is_unicode(url):
        raise click.UsageError("the database URL is not UTF-8: write other bytes as %XX")
    if not _is_embedded(url):
        yield url
        return
    from dsql_outbox.servers.postgres_server import EmbeddedPostgres  # noqa: PLC0415 - only for embedded:

    folder = url.removeprefix(_EMBEDDED)
    no_tcp = {"listen_addresses": ""}
    with EmbeddedPostgres(Path(folder) if folder else None, settings=no_tcp) as server:
        yield server.socket_url


def _is_embedded(url: str | None) -> bool:
    return url is not None and url.startswith(_EMBEDDED)
