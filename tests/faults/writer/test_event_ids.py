"""The ids of events that are made in a function given to `transact`: the same in each run."""

import asyncio
from contextvars import copy_context
from uuid import UUID

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import (
    OpenTransactor,
    Work,
    ids,
    open_transactor,
    own,
    own_rows,
)

from dsql_outbox.outbox import Database, Entity, Event, Receipt
from dsql_outbox.writer import AsyncTransaction, AsyncWriter

__all__ = ["open_transactor", "own"]


def sold(car: str = "CAR-1") -> Event:
    return Event.new("CarSold", [Entity("Car", car)])


def test_the_nth_event_has_one_id_in_all_runs_of_a_call_and_others_in_other_calls(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    outside, given = sold(), workload_s.car_created()
    runs: list[list[UUID]] = []

    def function(work: Work) -> None:
        first, second = sold(), sold()
        again = Event.new("CarSold", first.entities, id=given.id)  # takes no number
        third = sold()
        runs.append([first.id, second.id, third.id])
        assert again.id == given.id
        for event in (first, second, outside, again, third):
            work.append(event)

    writer = open_transactor(proxy.url)
    proxy.refuse(2, at="commit")
    writer.transact(function)
    assert ids(own) == {outside.id, given.id, *runs[0]}
    assert len(runs) == 3
    assert runs[0] == runs[1] == runs[2]

    def other(_work: Work) -> list[UUID]:
        return [sold().id, sold().id]

    others = [*writer.transact(other), *writer.transact(other)]
    assert len({*runs[0], *others, sold().id, sold().id}) == 9


@pytest.mark.parametrize("where", ["before", "after_commit"])
def test_a_lost_commit_is_found_by_an_event_of_a_run_that_appends_only_some(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables, where: str
) -> None:
    runs: list[UUID] = []

    def function(work: Work) -> Receipt:
        _, second, _, fourth = (sold() for _ in range(4))
        runs.append(second.id)
        work.execute("INSERT INTO own VALUES (1)")
        receipt = work.append(second)
        work.append(fourth)
        if len(runs) == 1:
            proxy.cut(where, matching="COMMIT")  # type: ignore[arg-type]
        return receipt

    receipt = open_transactor(proxy.url).transact(function)
    assert len(runs) == (1 if where == "after_commit" else 2)
    assert set(runs) == {receipt.event_id}
    assert (len(ids(own)), own_rows(own)) == (2, 1)


def test_a_call_inside_another_writers_call_has_ids_of_its_own(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    outer, inner = open_transactor(proxy.url), open_transactor(proxy.url)
    runs: list[list[UUID]] = []
    nested: list[UUID] = []

    def within(work: Work) -> None:
        event = sold("CAR-2")
        nested.append(event.id)
        work.append(event)

    def function(work: Work) -> None:
        before = sold()
        inner.transact(within)
        after = sold()
        runs.append([before.id, after.id])
        work.append(before)
        work.append(after)
        if len(runs) == 1:
            proxy.refuse(1, at="commit")

    outer.transact(function)
    assert len(runs) == 2
    assert runs[0] == runs[1]
    assert len(set(nested)) == 2
    assert ids(own) == {*nested, *runs[0]}


@pytest.mark.anyio
async def test_tasks_and_threads_of_a_run_get_its_ids(proxy: PostgresProxy, own: Tables) -> None:
    """What gets its context gets them: a task, `asyncio.to_thread`, a copy of the context."""
    runs: list[set[UUID]] = []

    async def one(transaction: AsyncTransaction, car: int) -> UUID:
        return (await transaction.append(sold(f"CAR-{car}"))).event_id

    async def function(transaction: AsyncTransaction) -> list[UUID]:
        appended = await asyncio.gather(*(one(transaction, n) for n in range(5)))
        made = await asyncio.gather(*(asyncio.to_thread(sold) for _ in range(20)))
        copied = copy_context().run(sold)
        runs.append({*appended, *(each.id for each in made), copied.id})
        return appended

    proxy.refuse(1, at="commit")
    async with AsyncWriter(Database(proxy.url), QUICK) as writer:
        appended = await writer.transact(function)
    assert [len(run) for run in runs] == [26, 26]
    assert runs[0] == runs[1]
    assert ids(own) == set(appended)


@pytest.mark.anyio
async def test_what_outlives_its_run_takes_no_id_of_the_next(
    proxy: PostgresProxy, own: Tables
) -> None:
    go_on = asyncio.Event()
    tasks: list[asyncio.Task[Event]] = []
    runs: list[list[UUID]] = []

    async def later() -> Event:
        await go_on.wait()
        return sold()

    async def function(transaction: AsyncTransaction) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(later()))
        else:
            go_on.set()
            await tasks[0]
        events = [sold() for _ in range(1 + len(runs))]  # the second run makes more
        runs.append([event.id for event in events])
        for event in events:
            await transaction.append(event)

    proxy.refuse(1, at="commit")
    async with AsyncWriter(Database(proxy.url), QUICK) as writer:
        await writer.transact(function)
    assert runs[0] == runs[1][:1]
    assert ids(own) == set(runs[1])
    assert tasks[0].result().id not in runs[1]
