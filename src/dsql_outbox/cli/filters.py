"""Options that select rows (ids, subjects, times), and the confirmation prompt."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import click

from dsql_outbox.outbox import SettingsError, parse_subject_key, subject_key

_Command = TypeVar("_Command", bound=Callable[..., object])


def instant_option(flag: str, help: str) -> Callable[[_Command], _Command]:  # noqa: A002 - click's own name
    """An option that takes a time in ISO 8601; a time without a zone is in UTC."""
    return click.option(flag, callback=_instant, metavar="TIME", help=help)


def subject_option(flag: str, help: str) -> Callable[[_Command], _Command]:  # noqa: A002 - click's own name
    """An option that takes TYPE/ID, percent-encoded or not.

    Its parameter `subject` holds the key as the outbox stores it.
    """
    return click.option(flag, "subject", callback=_subject, metavar="TYPE/ID", help=help)


def topic_option(command: _Command) -> _Command:
    """Add the option --topic."""
    return click.option("--topic", metavar="TOPIC", help="The exact topic.")(command)


def id_option(command: _Command) -> _Command:
    """Add the option --id, parameter `event_ids`."""
    return click.option(
        "--id",
        "event_ids",
        multiple=True,
        type=click.UUID,
        metavar="EVENT_ID",
        help="May be repeated.",
    )(command)


def all_option(command: _Command) -> _Command:
    """Add the flag --all, parameter `every`."""
    return click.option("--all", "every", is_flag=True, help="Select all; no filter is needed.")(
        command
    )


def yes_option(command: _Command) -> _Command:
    """Add the flag --yes."""
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(command)


def dry_run_option(command: _Command) -> _Command:
    """Add the flag --dry-run."""
    return click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")(
        command
    )


def json_option(command: _Command) -> _Command:
    """Add the flag --json, parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")(
        command
    )


def require_choice(what: str, *, filtered: bool, every: bool) -> None:
    """Raise `click.UsageError` unless the command has a filter or --all.

    A forgotten filter must not act on every row.
    """
    if not filtered and not every:
        raise click.UsageError(f"no filter is given: pass one, or --all for {what}")


def _instant(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        text = f"{value!r} is not a time such as 2026-11-24T18:00:00Z"
        raise click.BadParameter(text, ctx, param) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _subject(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return subject_key(*parse_subject_key(value))
    except SettingsError as error:
        raise click.BadParameter(str(error), ctx, param) from None


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
