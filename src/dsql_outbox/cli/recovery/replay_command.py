"""The command `replay`: send stored events again."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import anyio
import click

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.filters import (
    all_option,
    confirm,
    instant_option,
    subject_option,
    yes_option,
)
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import counted
from dsql_outbox.outbox import DEFAULT_SOURCE, Database, parse_subject_key
from dsql_outbox.publisher import EventFilter, Place, Replay, Replayed

from .replay_options import ReplayReport, replay_options
from .replay_run import ReplayRun


class _Asked(NamedTuple):
    """The selected events: by id, or by entity, or from all; and the place to start after."""

    event_ids: tuple[UUID, ...]
    entity: str | None
    which: EventFilter
    every: bool
    after: str | None

    @property
    def reads_all(self) -> bool:
        """Whether the replay reads all stored events, to find those that match."""
        return not self.event_ids and self.entity is None

    def require_one_way(self) -> None:
        """Raise `click.UsageError` unless there is one way of selecting, and `after` fits it."""
        filtered = self.which != EventFilter() or self.every
        if self.event_ids:
            if self.entity is not None or filtered or self.after is not None:
                raise click.UsageError("EVENT_ID.. takes no filter and no --after")
        elif self.entity is not None:
            if self.after is not None and not self.after.isdecimal():
                raise click.UsageError("--after of an --entity is one of its versions")
        elif not filtered:
            raise click.UsageError("give EVENT_ID.., or --entity, or a filter, or --all")
        elif self.after is not None:
            Place.parse(self.after)

    def told(self, replay: Replay) -> AsyncGenerator[Replayed]:
        """Replay the selected events, and yield the result of each."""
        if self.event_ids:
            return replay.events(self.event_ids)
        if self.entity is not None:
            after = int(self.after or 0)
            return replay.entity(*parse_subject_key(self.entity), self.which, after=after)
        return replay.stored(self.which, after=self.after)


@click.command(
    epilog="""\b
Examples:
  dsql-outbox replay 5f0c6a1e-6c3e-4a0a-9f43-1d0f4d5a2b11 --reason "ticket 77"
  dsql-outbox replay --entity Loan/LOAN-7 --after 12 --dry-run
  dsql-outbox replay --type LoanPaid --since 2026-11-24T10:00Z --rate 50
  dsql-outbox replay --topic events.LoanPaid --after Loan/LOAN-7@12

\b
Exit codes:
  0    done
  1    an event that was named is not stored, or waits in the outbox already
  2    wrong usage, or an unknown entity
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM); continue with --after""",
)
@click.argument("event_ids", nargs=-1, type=click.UUID, metavar="[EVENT_ID]...")
@subject_option("--entity", "Only events that touched this entity.")
@click.option("--type", "event_type", metavar="TYPE", help="Only events of this exact type.")
@click.option("--topic", metavar="TOPIC", help="Only events that go to this exact topic.")
@instant_option("--since", "Only events saved at this time or later; ISO 8601.")
@instant_option("--until", "Only events saved before this time; ISO 8601.")
@all_option
@click.option(
    "--after",
    metavar="PLACE",
    help="Continue after this place, which an earlier run printed: TYPE/ID@VERSION, "
    "or with --entity a version.",
)
@option(
    "--source",
    default=DEFAULT_SOURCE,
    metavar="TEXT",
    help="The CloudEvents source. It is not stored, so repeat the one of the writers' settings.",
)
@replay_options
@yes_option
@with_database("nothing was replayed", logs=True)
def replay(  # noqa: PLR0913 - one parameter per flag
    *,
    event_ids: tuple[UUID, ...],
    subject: str | None,
    event_type: str | None,
    topic: str | None,
    since: datetime | None,
    until: datetime | None,
    every: bool,
    after: str | None,
    source: str,
    reason: str,
    rate: float | None,
    dry_run: bool,
    listed: bool,
    as_json: bool,
    yes: bool,
    database: Database,
) -> None:
    """Send stored events again, whether they were delivered or not.

    Each message has the same text and event id. The number of the replay is in a header
    "replay" and in its dedupe id, so that the broker does not drop it as a duplicate.
    Replayed events of one subject arrive in its order, but in no order relative to events
    that are written meanwhile.

    An event that still waits in the outbox is left alone. Without EVENT_ID and
    --entity, a replay reads all stored events, because there is no index on type,
    topic and time: it shows their number and asks for confirmation.

    The first Ctrl-C ends the replay after the transaction in progress, and prints the --after
    with which another run continues.
    """
    which = EventFilter(event_type=event_type, topic=topic, since=since, until=until)
    asked = _Asked(event_ids, subject, which, every, after)
    asked.require_one_way()
    listed = listed or ((as_json or bool(event_ids)) and not dry_run)
    telling = ReplayReport(as_json=as_json, listed=listed, dry_run=dry_run)
    if asked.reads_all:
        confirm(anyio.run(_cost, database), yes=yes)
    tool = Replay(database, reason=reason, rate=rate, source=source, dry_run=dry_run)
    with telling.summed():
        code = anyio.run(ReplayRun(tool, telling).run, asked.told(tool))
    if code or (event_ids and telling.left_alone):
        raise click.exceptions.Exit(code or FAILED)


async def _cost(database: Database) -> str:
    async with Replay(database) as tool:
        stored = await tool.events_stored()
    rows = "all stored events" if stored is None else f"about {counted(stored, 'stored event')}"
    return f"This replay reads {rows}. Continue?"
