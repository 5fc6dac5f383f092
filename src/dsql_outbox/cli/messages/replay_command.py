"""The command `messages replay`: send stored events again."""

from datetime import datetime
from typing import Any
from uuid import UUID

import click
import msgspec

from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.filters import all_option, confirm, source_option, target_option, yes_option
from dsql_outbox.cli.output import counted, of_about, say
from dsql_outbox.cli.tool_call import with_tool
from dsql_outbox.operations.messages import Messages
from dsql_outbox.operations.replay import Replay
from dsql_outbox.operations.selection import Selection
from dsql_outbox.operations.whereabouts import shown_time

from .result_report import ResultReport
from .selection_options import requeue_options, selection_options


@click.command(
    epilog="""\b
Examples:
  dsql-outbox messages replay 5f0c6a1e-6c3e-4a0a-9f43-1d0f4d5a2b11 --reason "ticket 77"
  dsql-outbox messages replay --entity Loan/LOAN-7 --after 12 --dry-run
  dsql-outbox messages replay --type LoanPaid --since 2026-11-24T10:00Z --rate 50
  dsql-outbox messages replay --topic events.LoanPaid --after Loan/LOAN-7@12

\b
Exit codes:
  0    done
  1    an event that was named is not stored, or waits in the outbox already
  2    wrong usage, or an unknown entity
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM); continue with --after""",
)
@click.argument("event_ids", nargs=-1, type=click.UUID, metavar="[EVENT_ID]...")
@click.option("--entity", metavar="TYPE/ID", help="Only events that touched this entity.")
@selection_options(fields=("type", "topic", "since", "until"))
@all_option
@click.option(
    "--after",
    metavar="PLACE",
    help="Continue after this place, which an earlier replay printed: TYPE/ID@VERSION, "
    "or with --entity a version.",
)
@source_option(
    "The CloudEvents source. It is not stored, so repeat the one of the writers' settings."
)
@target_option("Send them to this target, and to no other.")
@requeue_options
@click.option("--list", "listed", is_flag=True, help="In a dry run: a line per event.")
@yes_option
@with_tool(Messages, "nothing was replayed", duty="operator", logs=True)
async def replay(
    tool: Messages,
    *,
    event_ids: tuple[UUID, ...],
    entity: str | None,
    which: Selection,
    every: bool,
    after: str | None,
    dry_run: bool,
    listed: bool,
    as_json: bool,
    yes: bool,
    **asked: Any,
) -> None:
    """Send stored events again, whether they were delivered or not.

    Each message has the same text and event id. The number of the replay is in a header
    "replay" and in its dedupe id, so that the broker does not drop it as a duplicate.
    Replayed events of one subject arrive in its order, but in no order relative to events
    that are written meanwhile.

    An event that still waits in the outbox is left alone. Without EVENT_ID and
    --entity, a replay reads all stored events, because there is no index on type,
    topic and time. It then shows their number and asks for confirmation. --since and
    --until compare the time at which an event was saved.

    The first Ctrl-C ends the replay after the transaction in progress, and prints the --after
    with which the next replay continues. One of EVENT_ID.. begins again with the first of them.
    """
    filtered = not which.selects_all or every
    if event_ids and (filtered or entity or after):
        raise click.UsageError("EVENT_ID.. takes no filter and no --after")
    if not (event_ids or entity or filtered):
        raise click.UsageError("give EVENT_ID.., or --entity, or a filter, or --all")
    listed = listed or ((as_json or bool(event_ids)) and not dry_run)
    report = ResultReport("replayed", as_json=as_json, listed=listed, dry_run=dry_run)
    which = msgspec.structs.replace(which, ids=event_ids)
    replay = tool.replay(which, entity=entity, after=after, dry_run=dry_run, **asked)
    if not event_ids and entity is None:
        confirm(_question(await tool.events_stored()), yes=yes)
    done = await report.drive(replay, lambda: _line(replay, report))
    if (done.missing or not event_ids) and (before := await tool.forgotten_before()):
        _tell_forgotten(before, which)
    if event_ids and done.left_alone:
        raise click.exceptions.Exit(FAILED)


def _tell_forgotten(before: datetime, which: Selection) -> None:
    """Say that events are gone for good, unless none of them was selected."""
    if which.since is None or which.since < before:
        text = f"events saved before {shown_time(before)} may have been forgotten: none is replayed"
        say(text, err=True)


def _question(stored: int | None) -> str:
    rows = "all stored events" if stored is None else f"about {counted(stored, 'stored event')}"
    return f"This replay reads {rows}. Continue?"


def _line(replay: Replay, report: ResultReport) -> str:
    done = replay.progress
    parts = [report.line(done)]
    if done.read and replay.again is not None:
        parts.append(f"read {done.read:,}{of_about(done.read, done.total)} rows")
    if done.place is not None and replay.again is not None:
        parts.append(f"at {done.place}")
    return ", ".join(parts)
