"""Options that several commands share, and the confirmation prompt."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from dsql_outbox.operations.selection import Selection, age_of
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import DEFAULT_SOURCE, DEFAULT_TARGET

from .options import Command

all_option: Final = click.option(
    "--all", "every", is_flag=True, help="Select all; no filter is needed."
)

yes_option: Final = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")

dry_run_option: Final = click.option(
    "--dry-run", is_flag=True, help="Show what would be done; change nothing."
)

json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per line."
)

rate_option: Final = click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="The largest number of events or rows per second, on average.",
)

reason_option: Final = click.option(
    "--reason",
    default="",
    metavar="TEXT",
    help="Free text, recorded with the operation; `dsql-outbox operations` lists it.",
)


def source_option(about: str) -> Callable[[Command], Command]:
    """Add the option --source."""
    return click.option(
        "--source", default=DEFAULT_SOURCE, metavar="TEXT", show_default=True, help=about
    )


def target_option(about: str) -> Callable[[Command], Command]:
    """Add the option --target."""
    return click.option("--target", default=DEFAULT_TARGET, metavar="NAME", help=about)


def time_or_age(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> datetime | None:
    """Callback of an option that takes a time in ISO 8601, or an age such as 90d."""
    del context, parameter
    try:
        found = Selection.parse({"since": [] if text is None else [text]}).since
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None
    return found and found.astimezone(UTC)


def age(context: click.Context, parameter: click.Parameter, text: str | None) -> timedelta | None:
    """Callback of an option that takes an age such as 30d."""
    del context, parameter
    if text is None:
        return None
    found = age_of(text)
    try:
        begin = None if found is None else datetime.now(UTC) - found
    except OverflowError:  # before the year 1
        begin = None
    if begin is None:
        raise click.BadParameter(f"{text!r} is not an age, a number and s, m, h or d, such as 30d")
    return found


def require_choice(what: str, *, filtered: bool, every: bool) -> None:
    """Raise `click.UsageError` unless the command has a filter or --all.

    A forgotten filter must not act on every row.
    """
    if not filtered and not every:
        raise click.UsageError(f"pass a filter (--state alone is none), or --all for {what}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation on standard error; return immediately if `yes`.

    Raises `click.Abort` if the user declines, and `click.UsageError` if standard
    input is not a terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask: pass --yes")
    click.confirm(question, abort=True, err=True)
