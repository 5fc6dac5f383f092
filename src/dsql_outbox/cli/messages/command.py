"""The command `messages`: list, show, retry, drop or replay messages."""

from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

import click

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.filters import (
    all_option,
    confirm,
    dry_run_option,
    json_option,
    rate_option,
    reason_option,
    require_choice,
    yes_option,
)
from dsql_outbox.cli.job import drive
from dsql_outbox.cli.named_functions import named_map
from dsql_outbox.cli.output import aligned, counted, json_line, say, say_fitting
from dsql_outbox.cli.signals import READ_ONLY
from dsql_outbox.cli.tool_call import called, collected, with_tool
from dsql_outbox.operations.messages import Messages
from dsql_outbox.operations.operator_commands import Commands
from dsql_outbox.operations.retry import MAX_RETRIED
from dsql_outbox.operations.selection import Selection
from dsql_outbox.operations.undelivered import UndeliveredMessage
from dsql_outbox.outbox.database.database import Database

from .mapped_message import show_mapped
from .message_text import fields, listed
from .replay_command import replay
from .result_report import ResultReport
from .selection_options import limit_option, requeue_options, selection_options

_SHOWN: Final = 100
_COUNTED: Final = 1_000

_DROPPED: Final = {
    "failing": ("Move {} to the dead letters?", "moved to the dead letters"),
    "dead": ("Delete {} for good?", "deleted"),
}


@click.group()
def messages() -> None:
    """List, show, retry, drop or replay messages.

    A message that was not delivered is waiting, failing or dead. A failing message
    holds back the later ones of its subject. One that is blocked, as with
    `publish --on-dead-letter block`, waits for `retry` or `drop`.
    """


messages.add_command(replay)


@messages.command("list")
@selection_options()
@limit_option(_SHOWN)
@click.option("--payload", is_flag=True, help="Include the event's text; needs --json.")
@json_option
@with_tool(Messages, READ_ONLY, duty="reader")
async def list_(
    tool: Messages, *, which: Selection, limit: int, payload: bool, as_json: bool
) -> None:
    """List messages: the failing ones, the dead, and then those that wait.

    Dead letters come newest first, by time of death, the others in the order in
    which they are sent. A filter other than --id has no index: the command reads page by page,
    until it has found --limit messages. `since` is the time of death, or of creation.

    A message takes two lines, and times are in UTC. With --json each line is an object.
    --payload adds the event's exact text, which may hold personal data and is not shown
    otherwise.
    """
    if payload and not as_json:
        raise click.UsageError("--payload needs --json; or use `dsql-outbox messages show`")
    count = 0
    async with aclosing(tool.find(which, payload=payload)) as found:
        async for message in found:
            if count == limit:
                say(f"there are more: narrow the filter, or raise --limit {limit}", err=True)
                break
            count += 1
            json_line(message) if as_json else _say(message)
    if not as_json and not count:
        say("no messages")


def _say(message: UndeliveredMessage) -> None:
    """Print two lines about a message; a terminal shows as much of them as fits."""
    for line in listed(message):
        say_fitting(line)


@messages.command()
@click.argument("event_id", type=click.UUID)
@click.option("--payload", is_flag=True, help="Include the event's text.")
@click.option(
    "--map",
    "map_name",
    metavar="MODULE:FUNCTION",
    help="Show the message of the event, delivered or not, as it is stored and as this function "
    "maps it. Nothing is sent.",
)
@json_option
@with_database(READ_ONLY, duty="reader")
def show(
    *, event_id: UUID, payload: bool, map_name: str | None, as_json: bool, database: Database
) -> None:
    """Show every field of one event's messages that were not delivered.

    An event has several if it was replayed. The exit code is 1 if it has none.

    --map shows what `publish --map` would send, payloads included. The exit code is 1 if the map
    fails, or refuses the message. What is not stored with an event has a default here: the header
    source, and 0 for previousposition and leaseepoch.
    """
    if map_name is not None:
        show_mapped(database, event_id, named_map(map_name), as_json=as_json)
        return
    which = Selection(ids=(event_id,))
    found = called(Messages(database), lambda tool: collected(tool.find(which, payload=payload)))
    if not found:
        where = Commands(database.schema).event(event_id)
        raise click.ClickException(
            f"no undelivered message has the event id {event_id}: `{where}` says where it is"
        )
    for n, message in enumerate(found):
        if n and not as_json:
            say()
        json_line(message) if as_json else aligned(fields(message))


@messages.command()
@selection_options(states=("failing", "dead"))
@all_option
@limit_option(MAX_RETRIED, MAX_RETRIED)
@requeue_options
@with_tool(Messages, duty="operator", logs=True)
async def retry(
    tool: Messages,
    *,
    which: Selection,
    every: bool,
    limit: int,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Let a publisher try failing messages and dead letters again.

    The failure of a failing message is forgotten, so it has all its attempts again. A dead
    message moves back into the outbox in one transaction; it is unchanged except
    for a header "replay" and a new dedupe id. Messages of one subject are sent in
    its order. See also `dsql-outbox messages replay`.

    The exit code is 1 if an --id has no such message, or if it was left alone
    because its event waits in the outbox already.
    """
    require_choice(
        "all failing messages and dead letters", filtered=not which.selects_all, every=every
    )
    report = ResultReport("retried", as_json=as_json, listed=not dry_run, dry_run=dry_run)
    retry = tool.retry(which, limit=limit, dry_run=dry_run, **asked)
    done = await report.drive(retry, lambda: report.line(retry.progress))
    if done.retried + done.planned + done.left_alone == limit:
        say(f"--limit {limit} is reached: there may be more", err=True)
    _end(which, report.ids, failed=bool(which.ids and done.left_alone))


@messages.command()
@selection_options(states=("failing", "dead"))
@all_option
@limit_option(None)
@rate_option
@reason_option
@dry_run_option
@json_option
@yes_option
@with_tool(Messages, "nothing was dropped", duty="operator", logs=True)
async def drop(
    tool: Messages,
    *,
    which: Selection,
    every: bool,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    **asked: Any,
) -> None:
    """Drop messages of one state, failing or dead.

    Failing messages move to the dead letters, and the later messages of their subjects are
    relayed. A message behind another one of its subject, which still waits, is left alone:
    drop that one first. Dead letters are deleted for good; their events stay stored
    and can be replayed.

    Asks for confirmation, and prints each message after its transaction.
    """
    if which.state is None:
        raise click.UsageError(
            "give --state failing, to move messages to the dead letters, or --state dead, to "
            "delete them"
        )
    require_choice(f"all {which.state} messages", filtered=not which.selects_all, every=every)
    ids: set[UUID] = set()

    def tell(message: UndeliveredMessage) -> None:
        ids.add(message.event_id)
        json_line(message) if as_json else _say(message)

    if not dry_run:
        confirm(await _question(tool, which, limit), yes=yes)
    drop = tool.drop(which, limit=limit, dry_run=dry_run, **asked)
    what = ("would be " if dry_run else "") + _DROPPED[str(which.state)][1]
    await drive(
        drop,
        lambda: f"{counted(drop.progress.dropped, 'message')} {what}",
        as_json=as_json,
        tell=tell,
        err=True,
    )
    done = drop.progress
    if done.behind:
        left = counted(done.behind, "message")
        say(f"{left} left alone: act on the message before it first", err=True)
    _end(which, ids, failed=done.behind > 0)


def _end(which: Selection, ids: set[UUID], *, failed: bool) -> None:
    """End with 1 if it failed, or if an id of the selection has no message."""
    unknown = len({*which.ids} - ids)
    if unknown:
        say(f"{unknown} of the ids: no {which.state or 'failing or dead'} message", err=True)
    if unknown or failed:
        raise click.exceptions.Exit(FAILED)


async def _question(tool: Messages, which: Selection, limit: int | None) -> str:
    count = 0
    async with aclosing(tool.drop(which, limit=limit, dry_run=True)) as found:
        async for _ in found:
            count += 1
            if count > _COUNTED:
                break
    more = f"more than {_COUNTED:,} messages"
    asked = more if count > _COUNTED else counted(count, "message")
    return _DROPPED[str(which.state)][0].format(asked)
