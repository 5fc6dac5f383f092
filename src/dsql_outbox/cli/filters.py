"""Options that several commands share, and the confirmation prompt."""

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from dsql_outbox.operations.selection import Selection
from dsql_outbox.outbox.errors import SettingsError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")

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
    found = _AGE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not an age, a number and s, m, h or d, such as 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


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
