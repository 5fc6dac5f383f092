"""Writers of one entity where nobody waits for a row lock, as on Aurora DSQL."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Literal
from uuid import UUID

import psycopg
import pytest
from tests.support.dsql.governed import GovernedPostgres
from tests.support.waiting import wait_until
from tests.support.writer.callers import TIMEOUT, formed, in_background
from tests.support.writer.checked_tables import Outcome, Tables

from dsql_outbox.outbox import Database, Entity, Event, Receipt
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings
from dsql_outbox.writer.tuned_settings import TunedSettings

Method = Literal["write", "transact"]

FEW = replace(TunedSettings.origin(), base=0.02, cap=0.4, backlog_check=None)
"""The origin's schedule, and the default, five times as fast."""

UNTIL_THE_END = replace(TunedSettings(), base=FEW.base, cap=FEW.cap, backlog_check=None)


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
                event = Event.new("CarMoved", [Entity("Car", "CAR-1", {"km": n})])
                outcomes[event.id] = await write(writer, event)

    await asyncio.gather(*(write_all() for _ in range(writers)))
    return outcomes


def failed(outcomes: dict[UUID, Outcome]) -> Sequence[Outcome]:
    return [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]


@pytest.mark.parametrize(("method", "writers", "writes"), [("write", 12, 2), ("transact", 7, 3)])
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


@pytest.mark.parametrize("method", ["write", "transact"])
def test_a_conflict_that_both_sides_lose_costs_one_attempt(
    governed: GovernedPostgres, tables: Tables, method: Method
) -> None:
    """Recorded once on a cluster, and not again on the next day."""
    with (
        Writer(Database(governed.url), formed(UNTIL_THE_END)) as writer,
        psycopg.connect(governed.url) as other,
    ):
        first = writer.write(moved(CARS[:1]))
        other.execute("UPDATE outbox.entities SET version = 7 WHERE entity_id = 'CAR-0'")
        governed.both_lose = 1
        if method == "write":
            second = writer.write(moved(CARS[:1]))
        else:
            second = writer.transact(lambda transaction: transaction.append(moved(CARS[:1])))
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.commit()
    assert (first.conflicts, second.conflicts, governed.both_lose) == (0, 1, 0)
    tables.assert_true_to({each.event_id: each for each in (first, second)})


def test_the_origins_three_retries_do_not_serve_a_storm(governed: GovernedPostgres) -> None:
    """The control of the test above: with the retries counted, events are lost."""
    governed.commit_time = 0.015
    outcomes = asyncio.run(storm(governed.url, FEW, "write", writers=12, writes=2))
    assert failed(outcomes)
    assert {type(error) for error in failed(outcomes)} == {psycopg.errors.SerializationFailure}


Names = list[tuple[str, str]]

NO_RETRY = replace(FEW, max_retries=0, max_connections=20)
CARS: Names = [("Car", f"CAR-{n}") for n in range(3)]


def moved(names: Names) -> Event:
    return Event.new("CarMoved", [Entity(*name, {}) for name in names])


def calls(random: Random, number: int) -> list[Names]:
    """Of each call the entities, in an order of its own."""
    return [random.sample(CARS, random.choice([1, 2, 3])) for _ in range(number)]


def in_threads(url: str, named: Sequence[Names]) -> list[Receipt]:
    with Writer(Database(url), formed(NO_RETRY)) as writer:

        def call(names: Names) -> Receipt:
            return writer.transact(
                lambda transaction: transaction.append(moved(names)), entities=names
            )

        running = [in_background(partial(call, names)) for names in named]
        return [each.result(TIMEOUT) for each in running]


def in_tasks(url: str, named: Sequence[Names]) -> list[Receipt]:
    async def all_calls() -> list[Receipt]:
        async with AsyncWriter(Database(url), formed(NO_RETRY)) as writer:

            async def call(names: Names) -> Receipt:
                event = moved(names)
                return await writer.transact(lambda t: t.append(event), entities=names)

            return await asyncio.gather(*map(call, named))

    return asyncio.run(all_calls())


@pytest.mark.parametrize("run", [in_threads, in_tasks])
@pytest.mark.parametrize("number", [pytest.param(5, marks=pytest.mark.slow), 16])
def test_calls_of_one_writer_never_meet_in_whatever_order_they_name_their_entities(
    governed: GovernedPostgres, tables: Tables, run: Callable[..., list[Receipt]], number: int
) -> None:
    """A single conflict would fail its call."""
    governed.commit_time = 0.01
    receipts = run(governed.url, calls(Random(number), number))
    assert [receipt.attempts for receipt in receipts] == [1] * number
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
