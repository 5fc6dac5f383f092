"""Writers of one entity where nobody waits for a row lock, as on Aurora DSQL."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal
from uuid import UUID

import psycopg
import pytest
from tests.support.dsql.governed import GovernedPostgres
from tests.support.waiting import wait_until
from tests.support.writer.callers import formed
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import AsyncWriter, WriterSettings

Method = Literal["write", "transact"]

FEW = replace(WriterSettings.origin(), base=0.02, cap=0.4, backlog_check=None, conflict_report=None)
"""The origin's schedule, and the default, five times as fast."""

UNTIL_THE_END = replace(
    WriterSettings(), base=FEW.base, cap=FEW.cap, backlog_check=None, conflict_report=None
)


async def storm(
    url: str, settings: WriterSettings, method: Method, *, writers: int, writes: int
) -> dict[UUID, Outcome]:
    """Let each writer, with connections of its own, write its events one after the other."""
    outcomes: dict[UUID, Outcome] = {}
    database = Database(url, opens_per_second=1_000)

    async def write(writer: AsyncWriter, event: Event) -> Outcome:
        try:
            if method == "write":
                return await writer.write(event)
            return await writer.transact(lambda transaction: transaction.append(event))
        except psycopg.Error as error:
            return error

    async def write_all() -> None:
        async with AsyncWriter(database, formed(settings)) as writer:
            for n in range(writes):
                event = Event.new("Car Moved", "CarMoved", [Entity("Car", "CAR-1", {"km": n})])
                outcomes[event.id] = await write(writer, event)

    await asyncio.gather(*(write_all() for _ in range(writers)))
    return outcomes


def failed(outcomes: dict[UUID, Outcome]) -> Sequence[Outcome]:
    return [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]


@pytest.mark.parametrize(("writers", "writes"), [(7, 3), (12, 2)])
@pytest.mark.parametrize("method", ["write", "transact"])
def test_every_event_of_a_storm_is_stored_and_no_connection_is_thrown_away(
    governed: GovernedPostgres, tables: Tables, method: Method, writers: int, writes: int
) -> None:
    governed.commit_time = 0.015
    outcomes = asyncio.run(
        storm(governed.url, UNTIL_THE_END, method, writers=writers, writes=writes)
    )
    assert not failed(outcomes)
    tables.assert_true_to(outcomes)
    conflicts = sum(getattr(outcome, "conflicts", 0) for outcome in outcomes.values())
    assert conflicts > writers, "else nothing was shown"
    wait_until(lambda: governed.closed == governed.opened)
    assert governed.opened <= writers + conflicts, "each opening is of a writer or a conflict"


def test_the_origins_three_retries_do_not_serve_a_storm(governed: GovernedPostgres) -> None:
    """The control of the test above: with the retries counted, events are lost."""
    governed.commit_time = 0.015
    outcomes = asyncio.run(storm(governed.url, FEW, "write", writers=12, writes=2))
    assert failed(outcomes)
    assert {type(error) for error in failed(outcomes)} == {psycopg.errors.SerializationFailure}
