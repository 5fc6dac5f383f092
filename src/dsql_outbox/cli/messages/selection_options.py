"""The options that select messages: one per field of a `Selection`."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final

import click

from dsql_outbox.cli.filters import (
    dry_run_option,
    json_option,
    rate_option,
    reason_option,
)
from dsql_outbox.cli.options import Command
from dsql_outbox.operations.selection import STATES, Selection
from dsql_outbox.outbox.errors import SettingsError

_TIME: Final = "a time in ISO 8601, or an age such as 90d, 2h, 15m or 30s"

_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "state": {"help": "Only messages in this state."},
    "id": {"multiple": True, "metavar": "EVENT_ID", "help": "May be repeated."},
    "target": {"metavar": "NAME", "help": "Only messages for this target."},
    "subject": {"metavar": "TYPE/ID", "help": "The subject, or TYPE for all subjects of a type."},
    "topic": {"metavar": "TOPIC", "help": "The exact topic."},
    "type": {"metavar": "TYPE", "help": "The exact type of the event."},
    "error": {"metavar": "TEXT", "help": "A part of the error, ignoring case; * is any text."},
    "since": {"metavar": "TIME", "help": f"From this time on: {_TIME}."},
    "until": {
        "metavar": "TIME",
        "help": "Before this time; an age such as 90d selects what is older.",
    },
    "blocked": {"is_flag": True, "help": "Only failing messages that wait for an operator."},
}


def selection_options(
    states: Sequence[str] = STATES, fields: Sequence[str] = tuple(_FIELDS)
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for each field, and call the command with the `Selection`, `which`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)  # also the options that the command has already
        def run(**options: Any) -> None:
            given = {name: options.pop(name) for name in fields}
            command(which=selected(given), **options)

        found: Callable[..., None] = run
        for name in reversed(fields):
            more: dict[str, Any] = {"type": click.Choice(states)} if name == "state" else {}
            found = click.option(f"--{name}", **_FIELDS[name], **more)(found)
        return found

    return decorate


def selected(given: dict[str, Any]) -> Selection:
    """The selection of the given options. Raises `click.UsageError` for one that is invalid."""
    texts = {name: [value] if isinstance(value, str) else value for name, value in given.items()}
    try:
        return Selection.parse(
            {name: ["1"] if value is True else value for name, value in texts.items() if value}
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def limit_option(default: int | None, most: int | None = None) -> Callable[[Command], Command]:
    """Add the option --limit."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1, max=most),
        default=default,
        show_default=default is not None,
        metavar="N",
        help="The largest number of messages.",
    )


def requeue_options(command: Command) -> Command:
    """Add --reason, --rate, --dry-run and --json."""
    for add in (json_option, dry_run_option, rate_option, reason_option):
        command = add(command)
    return command
