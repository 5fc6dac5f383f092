"""The command `dead-letters`: list, show, replay or drop messages that were given up."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

import anyio
import click

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.filters import (
    all_option,
    confirm,
    dry_run_option,
    id_option,
    instant_option,
    json_option,
    require_choice,
    subject_option,
    topic_option,
    yes_option,
)
from dsql_outbox.cli.output import aligned, counted, json_line, say
from dsql_outbox.cli.signals import GO_ON, READ_ONLY, interruptible
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import MAX_REPLAYED, DeadLetter, DeadLetters, LetterFilter

from .dead_letter_cells import LETTER_HEADER, letter_cells, letter_fields
from .replay_options import ReplayReport, replay_options

_SHOWN: Final = 100
_COUNTED: Final = 1_000

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, replay or drop the messages that were given up."""


def _filters(command: _Command) -> _Command:
    """Options whose parameters are the fields of a `LetterFilter`."""
    options = (
        id_option,
        subject_option("--key", "The subject, as in Loan/LOAN-7."),
        topic_option,
        click.option("--error", metavar="TEXT", help="A part of the error; case is ignored."),
        instant_option("--since", "Given up at this time or later; ISO 8601."),
        instant_option("--until", "Given up before this time; ISO 8601."),
    )
    for add in reversed(options):
        command = add(command)
    return command


def _limit(default: int | None, most: int | None = None) -> Callable[[_Command], _Command]:
    return click.option(
        "--limit",
        type=click.IntRange(min=1, max=most),
        default=default,
        show_default=default is not None,
        metavar="N",
        help="The largest number of dead letters.",
    )


@dead_letters.command("list")
@_filters
@_limit(_SHOWN)
@click.option("--payload", is_flag=True, help="Include the event's text; needs --json.")
@json_option
@with_database(READ_ONLY)
def list_(*, limit: int, payload: bool, as_json: bool, database: Database, **filters: Any) -> None:
    """List dead letters, in order of event id.

    With --json each line is an object. --payload adds the event's exact text,
    which may hold personal data and is not shown otherwise.
    """
    if payload and not as_json:
        raise click.UsageError("--payload needs --json; or use `dsql-outbox dead-letters show`")
    anyio.run(_list, database, LetterFilter(**filters), limit, payload, as_json)


async def _list(
    database: Database, which: LetterFilter, limit: int, payload: bool, as_json: bool
) -> None:
    lines: list[tuple[str, ...]] = [LETTER_HEADER]
    count = 0
    async with DeadLetters(database) as tool, aclosing(tool.find(which, payload=payload)) as found:
        async for letter in found:
            if count == limit:
                say(f"there are more: narrow the filter, or raise --limit {limit}", err=True)
                break
            count += 1
            if as_json:
                json_line(letter)
            else:
                lines.append(letter_cells(letter))
    if not as_json:
        aligned(lines) if count else say("no dead letters")


@dead_letters.command()
@click.argument("event_id", type=click.UUID)
@click.option("--payload", is_flag=True, help="Include the event's text.")
@json_option
@with_database(READ_ONLY)
def show(*, event_id: UUID, payload: bool, as_json: bool, database: Database) -> None:
    """Show every field of one event's dead letters.

    An event has several if its replays were given up, too. The exit code is 1 if
    it has none.
    """
    letters = anyio.run(_gather, database, LetterFilter(event_ids=(event_id,)), payload)
    if not letters:
        raise click.ClickException(f"no dead letter has the event id {event_id}")
    for n, letter in enumerate(letters):
        if n and not as_json:
            say()
        json_line(letter) if as_json else aligned(letter_fields(letter))


async def _gather(database: Database, which: LetterFilter, payload: bool) -> list[DeadLetter]:
    async with DeadLetters(database) as tool:
        return [letter async for letter in tool.find(which, payload=payload)]


@dead_letters.command()
@_filters
@all_option
@_limit(MAX_REPLAYED, MAX_REPLAYED)
@replay_options
@with_database()
def replay(  # noqa: PLR0913 - one parameter per flag
    *,
    every: bool,
    limit: int,
    reason: str,
    rate: float | None,
    dry_run: bool,
    listed: bool,
    as_json: bool,
    database: Database,
    **filters: Any,
) -> None:
    """Move dead letters back into the outbox, to be relayed again.

    The same transaction deletes the dead letter. Each message is unchanged
    except for a header "replay" and a new dedupe id. Messages of one subject are
    sent in its order. See also `dsql-outbox replay`.

    The exit code is 1 if an --id has no dead letter, or if it was skipped
    because its event waits in the outbox already.
    """
    which = LetterFilter(**filters)
    require_choice("all dead letters", filtered=which != LetterFilter(), every=every)

    async def run(found: Database) -> None:
        async with DeadLetters(found) as tool:
            told = tool.replay(which, reason=reason, rate=rate, limit=limit, dry_run=dry_run)
            await telling.all(told)

    telling = ReplayReport(as_json=as_json, listed=listed or not dry_run, dry_run=dry_run)
    with interruptible(GO_ON), telling.summed():
        anyio.run(run, database)
    if telling.total == limit:
        say(f"--limit {limit} is reached: there may be more", err=True)
    unknown = max(0, len(set(which.event_ids)) - telling.total)
    if unknown:
        say(f"{unknown} of the ids: no such dead letter", err=True)
    if which.event_ids and (telling.left_alone or unknown):
        raise click.exceptions.Exit(FAILED)


@dead_letters.command()
@_filters
@all_option
@_limit(None)
@dry_run_option
@json_option
@yes_option
@with_database()
def drop(  # noqa: PLR0913 - one parameter per flag
    *,
    every: bool,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    database: Database,
    **filters: Any,
) -> None:
    """Delete dead letters for good. The events stay stored and can be replayed.

    Asks for confirmation, and prints each dead letter that it deleted.
    """
    which = LetterFilter(**filters)
    require_choice("all dead letters", filtered=which != LetterFilter(), every=every)
    done = _Dropped(is_planned=dry_run)
    with interruptible(lambda: f"{done}; {GO_ON}"):
        if not dry_run:
            confirm(anyio.run(_question, database, which, limit), yes=yes)
        anyio.run(_drop, database, which, limit, as_json, done)
    say(str(done), err=True)


@dataclass
class _Dropped:
    """How many dead letters were dropped, or would be."""

    is_planned: bool
    count: int = 0

    def __str__(self) -> str:
        would = "would be " if self.is_planned else ""
        return f"{counted(self.count, 'dead letter')} {would}dropped"


async def _question(database: Database, which: LetterFilter, limit: int | None) -> str:
    count = 0
    async with (
        DeadLetters(database) as tool,
        aclosing(tool.drop(which, limit=limit, dry_run=True)) as found,
    ):
        async for _ in found:
            count += 1
            if count > _COUNTED:
                return f"Drop more than {_COUNTED:,} dead letters for good?"
    return f"Drop {counted(count, 'dead letter')} for good?"


async def _drop(
    database: Database, which: LetterFilter, limit: int | None, as_json: bool, done: _Dropped
) -> None:
    async with (
        DeadLetters(database) as tool,
        aclosing(tool.drop(which, limit=limit, dry_run=done.is_planned)) as dropped,
    ):
        async for letter in dropped:
            done.count += 1
            json_line(letter) if as_json else say("  ".join(letter_cells(letter)))
