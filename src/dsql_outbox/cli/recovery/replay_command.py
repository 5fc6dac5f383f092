"""The command `replay`: send stored events again."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import anyio
import click

from dsql_outbox.cli.database_options import database_options, open_database
from dsql_outbox.cli.exit_codes import FAILED, short_errors
from dsql_outbox.cli.filters import confirm, instant_option, subject_option, yes_option
from dsql_outbox.cli.missing_tables import tables_needed
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import counted
from dsql_outbox.outbox import DEFAULT_SOURCE, Database, parse_subject_key
from dsql_outbox.publisher import Replay, Replayed

from .replay_options import ReplayReport, replay_options


@dataclass(frozen=True, slots=True)
class _Asked:
    """The selected events: by id, or by entity, or by time."""

    event_ids: tuple[UUID, ...]
    entity: str | None
    after: int | None
    since: datetime | None
    until: datetime | None

    def __post_init__(self) -> None:
        """Raise `click.UsageError` unless exactly one way of selecting is given."""
        timed = self.since is not None or self.until is not None
        if bool(self.event_ids) + (self.entity is not None) + timed != 1:
            raise click.UsageError("give EVENT_ID.., or --entity, or --since with --until")
        if timed and (self.since is None or self.until is None):
            raise click.UsageError("--since and --until need each other")
        if self.after is not None and self.entity is None:
            raise click.UsageError("--after is a version of --entity: give --entity, too")

    def told(self, replay: Replay) -> AsyncGenerator[Replayed]:
        """Replay the selected events, and yield what became of each."""
        if self.entity is not None:
            return replay.entity(*parse_subject_key(self.entity), after=self.after or 0)
        if self.since is not None and self.until is not None:
            return replay.period(self.since, self.until)
        return replay.events(self.event_ids)


@click.command(
    epilog="""\b
Examples:
  dsql-outbox replay 5f0c6a1e-6c3e-4a0a-9f43-1d0f4d5a2b11 --reason "ticket 77"
  dsql-outbox replay --entity Loan/LOAN-7 --after 12 --dry-run
  dsql-outbox replay --since 2026-11-24T10:00Z --until 2026-11-24T11:00Z --rate 50

\b
Exit codes:
  0    done
  1    an event that was named is not stored, or waits in the outbox already
  2    wrong usage, an unknown entity, or a period of more than 100000 events
  78   the tables are missing or older: run `dsql-outbox schema apply`""",
)
@click.argument("event_ids", nargs=-1, type=click.UUID, metavar="[EVENT_ID]...")
@subject_option("--entity", "All events that touched this entity.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="VERSION",
    help="With --entity: only events after this version of it.",
)
@instant_option("--since", "All events saved at this time or later; needs --until. ISO 8601.")
@instant_option("--until", "All events saved before this time; needs --since. ISO 8601.")
@option(
    "--source",
    default=DEFAULT_SOURCE,
    metavar="TEXT",
    help="The CloudEvents source. It is not stored, so give the one of the writers' settings.",
)
@replay_options
@yes_option
@database_options
@short_errors()
@tables_needed()
def replay(  # noqa: PLR0913 - one parameter per flag
    *,
    event_ids: tuple[UUID, ...],
    subject: str | None,
    after: int | None,
    since: datetime | None,
    until: datetime | None,
    source: str,
    reason: str,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    database: str | None,
    schema: str,
) -> None:
    """Send stored events again, whether they were delivered or not.

    Each message is the same and has the same event id. It carries the number of
    the replay in a header "replay" and in its dedupe id, so that the broker does
    not drop it as a duplicate. Replayed events of one subject arrive in its
    order, but in no order relative to events that are written meanwhile.

    An event that still waits in the outbox is left alone. A replay by time reads
    all stored events, because there is no index on time: it shows their number
    and asks for confirmation.
    """
    asked = _Asked(event_ids, subject, after, since, until)
    telling = ReplayReport(as_json=as_json)
    with open_database(database, schema) as found:
        if since is not None:
            confirm(anyio.run(_cost, found), yes=yes)
        tool = Replay(found, reason=reason, rate=rate, source=source, dry_run=dry_run)
        with telling.summed():
            anyio.run(_replay, tool, asked, telling)
    if event_ids and telling.left_alone:
        raise click.exceptions.Exit(FAILED)


async def _replay(tool: Replay, asked: _Asked, telling: ReplayReport) -> None:
    async with tool:
        await telling.all(asked.told(tool))


async def _cost(database: Database) -> str:
    async with Replay(database) as tool:
        stored = await tool.events_stored()
    rows = "all stored events" if stored is None else f"about {counted(stored, 'stored event')}"
    return f"A replay by time reads {rows}. Go on?"
