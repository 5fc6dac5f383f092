"""The commands of `schema`: their options and their output."""

from collections.abc import Callable, Iterator
from itertools import groupby
from time import monotonic
from typing import Literal, TypeVar

import click

from dsql_outbox.cli.database_options import schema_option, with_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.output import counted, duration, json_line, say, say_all
from dsql_outbox.cli.progress_line import progress
from dsql_outbox.cli.signals import GO_ON, READ_ONLY, interruptible
from dsql_outbox.outbox import DEFAULT_SHARDS, Database
from dsql_outbox.schema import DUTIES, ApplyStep, Granted, PlannedStep, Roles, ddl
from dsql_outbox.schema import apply as apply_schema
from dsql_outbox.schema import check as check_schema
from dsql_outbox.schema import grant as grant_rights
from dsql_outbox.schema import plan as plan_schema


class ApplySteps:
    """Takes the steps of `apply`. As text it is the current step, and its duration so far."""

    def __init__(self) -> None:
        self._step: ApplyStep | None = None
        self._began = monotonic()
        self._count = 0

    def __call__(self, step: ApplyStep) -> None:
        """Take a step."""
        if self._step is None or self._step.label != step.label:
            self._began = monotonic()
            self._count += 1
        self._step = step

    def __str__(self) -> str:
        """The current migration."""
        if self._step is None:
            return "reading the tables"
        rows = f", about {self._step.rows:,} rows read" if self._step.rows else ""
        return f"applying {self._step.label} for {duration(monotonic() - self._began)}{rows}"

    def done(self) -> str:
        """How many migrations are complete."""
        return f"{counted(max(0, self._count - 1), 'migration')} applied"


_Command = TypeVar("_Command", bound=Callable[..., object])

_shards_option = click.option("--shards", type=int, help="The number of shards; it can only grow.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _roles_options(command: _Command) -> _Command:
    """Add an option per duty, such as --writer; the parameter has the same name."""
    for duty in reversed(DUTIES):
        help_ = f"The database role of the {duty}."
        command = click.option(f"--{duty}", metavar="ROLE", help=help_)(command)
    return command


@click.group()
def schema() -> None:
    """Create, print, plan or check the tables, and grant rights to them."""


@schema.command()
@_shards_option
@click.option(
    "--after-deploy",
    is_flag=True,
    help="Apply the migrations that must wait until no older version runs.",
)
@with_database(bare=True)
def apply(database: Database, shards: int | None, *, after_deploy: bool) -> None:
    """Create the tables, or migrate them to this version.

    Safe to run again, also in several places together. Run it before you deploy new code. If it
    reports waiting migrations, run it again with --after-deploy when no older code runs.
    """
    steps = ApplySteps()
    deploy: Literal["before", "after"] = "after" if after_deploy else "before"
    with interruptible(lambda: f"{steps.done()}; {GO_ON}"), progress(lambda: str(steps)):
        done = apply_schema(database, shards=shards, deploy=deploy, told=steps)
    for label in done.applied:
        say(f"applied {label}")
    for label, command in done.waiting.items():
        say(f"waiting {label}: for {command}")
    state = f"{len(done.waiting)} waiting" if done.waiting else "up to date"
    say(f"schema {done.schema}: {done.migrations} migrations, {done.shards} shards, {state}")


@schema.command("print")
@schema_option
@click.option("--shards", type=int, default=DEFAULT_SHARDS, show_default=True)
def print_(schema: str, shards: int) -> None:
    """Print the SQL that `apply` runs on an empty database."""
    click.echo(ddl(schema, shards), nl=False)  # not escaped: the output is SQL to be run


@schema.command()
@_shards_option
@_json_option
@with_database(READ_ONLY, bare=True)
def plan(database: Database, shards: int | None, *, as_json: bool) -> None:
    """Print what `apply` would do, as SQL, and change nothing.

    Each statement is its own transaction.
    """
    steps = plan_schema(database, shards=shards)
    json_line(steps) if as_json else say_all(_script(database.schema, steps))


@schema.command()
@_roles_options
@_json_option
@with_database(READ_ONLY, bare=True)
def check(database: Database, *, as_json: bool, **roles: str | None) -> None:
    """Report how the tables differ from what this version needs.

    The exit code is 1 if they differ. Each line ends with the command that
    corrects the difference. For the roles given, it also reports the rights that
    they lack, and those that they have but do not need.
    """
    drifts = check_schema(database, Roles(**roles))
    lines = [drift.text for drift in drifts] or [f"schema {database.schema}: no difference"]
    json_line(drifts) if as_json else say_all(lines)
    if drifts:
        raise click.exceptions.Exit(FAILED)


@schema.command()
@_roles_options
@click.option("--dry-run", is_flag=True, help="Print the statements, and run none.")
@_json_option
@with_database(f"some rights may be granted; {GO_ON}", bare=True)
def grant(database: Database, *, dry_run: bool, as_json: bool, **roles: str | None) -> None:
    """Grant roles the rights that they need, and no more.

    Prints the statements. The roles must exist; one role may have several
    duties. Safe to run again. Run it again after each upgrade. On Aurora DSQL it
    also prints the statements that let IAM roles connect; the owner of the
    cluster must complete and run them.
    """
    done = grant_rights(database, Roles(**roles), dry_run=dry_run)
    json_line(done) if as_json else say_all(_granted(done))


def _script(schema: str, steps: list[PlannedStep]) -> Iterator[str]:
    """The steps as an SQL script. All other text is in comments."""
    if not steps:
        yield f"-- schema {schema}: nothing to do"
    for (command, deploy), group in groupby(steps, key=lambda step: (step.command, step.deploy)):
        when = "before the deploy" if deploy == "before" else "after the deploy"
        yield f"-- {when}, by {command}"
        for step in group:
            yield f"\n-- {step.name}" + (f", {step.note}" if step.note else "")
            yield from (f"{text};" for text in step.statements)
        yield ""


def _granted(done: Granted) -> Iterator[str]:
    yield from (f"{text};" for text in done.statements)
    if done.iam:
        yield "-- For the cluster's owner to complete and run; not run here:"
        yield from (f"-- {text};" for text in done.iam)
    count = len(done.statements)
    ran = "none of them run" if done.dry_run else "all run"
    yield f"-- schema {done.schema}: {count} statements, {ran}"
