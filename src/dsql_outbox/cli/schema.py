"""The commands of `schema`: their options and their output."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import TypeVar

import click

from dsql_outbox.observability.shown_text import duration
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.settings import DEFAULT_SHARDS
from dsql_outbox.schema.comparison import check as check_schema
from dsql_outbox.schema.migrator import apply as apply_schema
from dsql_outbox.schema.migrator import ddl, remove
from dsql_outbox.schema.roles import DUTIES, Granted, Roles
from dsql_outbox.schema.roles import grant as grant_rights
from dsql_outbox.schema.tables import TableSet

from .database_options import schema_option, with_database
from .exit_codes import FAILED
from .filters import confirm, reason_option, yes_option
from .output import counted, json_line, say, say_all, say_folded
from .progress_line import progress
from .signals import GO_ON, READ_ONLY, interruptible


class ApplySteps:
    """Takes the steps of `apply`. As text it is the current step, and its duration so far."""

    def __init__(self) -> None:
        self._label: str | None = None
        self._began = monotonic()
        self._count = 0

    def __call__(self, label: str) -> None:
        """Take a step."""
        self._label = label
        self._began = monotonic()
        self._count += 1

    def __str__(self) -> str:
        """The current migration."""
        if self._label is None:
            return "reading the tables"
        return f"applying {self._label} for {duration(monotonic() - self._began)}"

    def done(self) -> str:
        """How many migrations are complete."""
        return f"{counted(max(0, self._count - 1), 'migration')} applied"


_Command = TypeVar("_Command", bound=Callable[..., object])

_shards_option = click.option("--shards", type=int, help="The number of shards; it can only grow.")
_inbox_option = click.option(
    "--inbox",
    "tables",
    flag_value="inbox",
    default="all",
    help="Only the tables of the inbox, for a service that only consumes.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _roles_options(command: _Command) -> _Command:
    """Add an option per duty, such as --writer; the parameter has the same name."""
    for duty in reversed(DUTIES):
        help_ = f"The database role of the {duty}."
        command = click.option(f"--{duty}", metavar="ROLE", help=help_)(command)
    return command


@click.group()
def schema() -> None:
    """Create, print, check or drop the tables, and grant rights to them."""


@schema.command()
@_inbox_option
@_shards_option
@reason_option
@with_database(bare=True)
def apply(database: Database, *, tables: TableSet, shards: int | None, reason: str) -> None:
    """Create the tables that are missing.

    Safe to run again, also in several places together. Run it before you deploy new code.
    After --inbox, a run without it creates the others.
    """
    steps = ApplySteps()
    with interruptible(lambda: f"{steps.done()}; {GO_ON}"), progress(lambda: str(steps)):
        done = apply_schema(database, shards=shards, tables=tables, reason=reason, told=steps)
    for label in done.applied:
        say(f"applied {label}")
    shown = f"{done.shards} shards" if tables == "all" else "the tables of the inbox"
    say(f"schema {done.schema}: {done.migrations} migrations, {shown}, up to date")


@schema.command("print")
@schema_option
@_inbox_option
@click.option("--shards", type=int, show_default=str(DEFAULT_SHARDS), help="The number of shards.")
def print_(schema: str, *, tables: TableSet, shards: int | None) -> None:
    """Print the SQL that `apply` runs on an empty database."""
    click.echo(ddl(schema, shards, tables), nl=False)  # not escaped: the output is SQL to be run


@schema.command()
@_inbox_option
@_roles_options
@_json_option
@with_database(READ_ONLY, bare=True)
def check(database: Database, *, tables: TableSet, as_json: bool, **roles: str | None) -> None:
    """Report how the tables differ from what this version needs.

    The exit code is 1 if they differ. Each line ends with what corrects the
    difference. For the roles given, it also reports the rights that they lack,
    and those that they have but do not need. Notes name the owner's triggers,
    rules, policies and options, and do not change the exit code.
    """
    drifts = check_schema(database, Roles(**roles), tables=tables)
    lines = [f"note: {drift.text}" if drift.is_note else drift.text for drift in drifts]
    is_same = all(drift.is_note for drift in drifts)
    if is_same:
        lines.append(f"schema {database.schema}: no difference")
    if as_json:
        json_line(drifts)
    else:
        for line in lines:
            say_folded(line)
    if not is_same:
        raise click.exceptions.Exit(FAILED)


@schema.command()
@yes_option
@with_database(GO_ON, bare=True)
def drop(database: Database, *, yes: bool) -> None:
    """Drop the tables, with all events, entities and messages in them.

    Asks for confirmation. Other tables of the schema stay.
    """
    confirm(f"Drop the tables of schema {database.schema}, with all events and messages?", yes=yes)
    dropped = remove(database)
    say(f"schema {database.schema}: {len(dropped)} tables and views dropped")


@schema.command()
@_roles_options
@click.option("--dry-run", is_flag=True, help="Print the statements, and run none.")
@_json_option
@with_database(f"some rights may be granted; {GO_ON}", bare=True)
def grant(database: Database, *, dry_run: bool, as_json: bool, **roles: str | None) -> None:
    """Grant roles the rights that they need, and no more.

    Prints the statements. The roles must exist, and one role may have several
    duties. Safe to run again. Run it again after each upgrade. On Aurora DSQL it
    also prints the statements that let IAM roles connect. The owner of the
    cluster must complete and run them.
    """
    done = grant_rights(database, Roles(**roles), dry_run=dry_run)
    json_line(done) if as_json else say_all(_granted(done))


def _granted(done: Granted) -> Iterator[str]:
    yield from (f"{text};" for text in done.statements)
    if done.iam:
        yield "-- For the cluster's owner to complete and run; not run here:"
        yield from (f"-- {text};" for text in done.iam)
    count = len(done.statements)
    ran = "none of them run" if done.dry_run else "all run"
    yield f"-- schema {done.schema}: {count} statements, {ran}"
