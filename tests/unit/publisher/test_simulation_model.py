"""The simulation finds what it is there to find: shown on a relay that is simple and right."""

import asyncio
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
from benchmarks.simulation import schedule
from benchmarks.simulation.judge import judge
from benchmarks.simulation.machines import Machine, World
from benchmarks.simulation.random_schedules import random_schedule
from benchmarks.simulation.schedule import Schedule
from benchmarks.simulation.simulate import Run, terms_of
from benchmarks.simulation.smaller import literal, smaller
from tests.support.checkout import ROOT
from tests.support.publisher.naive_relay import NaiveRelay

from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher.outbox_rows import OutboxRow, RowId
from dsql_outbox.publisher.sinks.port import Delivered, Outcome, Retry

HANGS = {"call hangs", "call stuck"}


def single(seed: int) -> Schedule:
    """A schedule for a relay that has no leases, and no watch over what hangs."""
    whole = random_schedule(seed)
    whole = whole.of_target(0)
    faults = [f if f.kind in schedule.TOPICS else f._replace(of=0) for f in whole.faults]
    kept = tuple(fault for fault in faults if fault.kind not in HANGS)
    return replace(whole, clocks=whole.clocks[:1], faults=kept)


def found(relay: type[NaiveRelay], seeds: range) -> Iterator[str]:
    """What the judge finds in the runs of these seeds."""
    for one in map(single, seeds):
        for fault in judge(Run(one, relay)(), terms_of(one)):
            if "without the lease" not in fault:
                yield fault


class ForgetsToDelete(NaiveRelay):
    async def repeated(self, statement: Any, rows: Collection[Any]) -> None:
        if statement != self._parts.store.delete:
            await super().repeated(statement, rows)


class DeletesWhatFailed(NaiveRelay):
    async def send(self, rows: list[OutboxRow]) -> dict[RowId, Outcome]:
        return {
            row: Delivered() if isinstance(outcome, Retry) else outcome
            for row, outcome in (await super().send(rows)).items()
        }


class DeletesWhatWasNotAnswered(NaiveRelay):
    async def send(self, rows: list[OutboxRow]) -> dict[RowId, Outcome]:
        return {row.id: Delivered() for row in rows} | await super().send(rows)


class ForgetsTheOrder(NaiveRelay):
    def first(self, rows: Iterable[OutboxRow]) -> list[OutboxRow]:
        return list({row.key: row for row in rows}.values())


class ChargesAnOutage(NaiveRelay):
    def unavailable(
        self, error: SinkUnavailable, sent: Iterable[RowId], outcomes: dict[RowId, Outcome]
    ) -> None:
        for row in sent:
            outcomes.setdefault(row, Retry(str(error)))


class GivesUpAtOnce(NaiveRelay):
    async def settle(self, outcomes: dict[RowId, Outcome], attempts: dict[RowId, int]) -> None:
        await super().settle(outcomes, attempts | dict.fromkeys(outcomes, 9))


class NeverGivesUp(NaiveRelay):
    async def settle(self, outcomes: dict[RowId, Outcome], attempts: dict[RowId, int]) -> None:
        await super().settle(outcomes, dict.fromkeys(attempts, 0))


class ServesOneSubjectAtATime(NaiveRelay):
    def first(self, rows: Iterable[OutboxRow]) -> list[OutboxRow]:
        return super().first(rows)[:1]


class SendsTwice(NaiveRelay):
    async def send(self, rows: list[OutboxRow]) -> dict[RowId, Outcome]:
        await super().send(rows)
        return await super().send(rows)


class Ends(NaiveRelay):
    async def relay(self) -> None:
        await super().relay()
        raise ValueError("unexpected")


class SendsTwoOfASubject(NaiveRelay):
    def first(self, rows: Iterable[OutboxRow]) -> list[OutboxRow]:
        return list(rows)


def test_a_right_relay_breaks_no_rule() -> None:
    assert list(found(NaiveRelay, range(30))) == []


@pytest.mark.parametrize(
    ("relay", "text"),
    [
        (ForgetsToDelete, "is still in the outbox"),
        (DeletesWhatFailed, "is lost"),
        (DeletesWhatWasNotAnswered, "without an acknowledgement"),
        (ForgetsTheOrder, "before the row before it"),
        (ChargesAnOutage, "attempts after 0 failures"),
        (GivesUpAtOnce, "was buried after 1 failures"),
        (NeverGivesUp, "was tried"),
        (ServesOneSubjectAtATime, "waited"),
        (SendsTwice, "arrived 2 times"),
        (Ends, "ended: ValueError"),
        (SendsTwoOfASubject, "two runs of"),
    ],
)
def test_a_wrong_relay_is_found(relay: type[NaiveRelay], text: str) -> None:
    assert any(text in fault for fault in found(relay, range(60)))


def test_a_run_depends_on_its_seed_only() -> None:
    """Not on the order of sets of texts, which differs from process to process."""
    code = (
        "from benchmarks.simulation.verdict import random_schedule, verdict\n"
        "for seed in range(3): print(vars(verdict(random_schedule(seed))[0]))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": number, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for number in "12"
    )
    assert first == second


def test_a_machine_runs_by_its_own_clock_and_jumps_over_the_time_in_between() -> None:
    world = World()
    fast, seen = Machine(world, rate=2.0, offset=1000.0), list[tuple[float, float]]()

    async def run() -> None:
        assert anyio.current_time() == pytest.approx(1000, abs=0.01)
        with anyio.move_on_after(600):
            await anyio.sleep_forever()
        seen.append((anyio.current_time(), world.now))

    fast.loop.create_task(run())
    world.run(1000)
    assert seen[0] == pytest.approx((1600, 300), abs=0.01)


def test_a_machine_that_stands_still_runs_all_that_became_due_afterwards() -> None:
    world, seen = World(), list[float]()
    slow = Machine(world, 1.0, 0.0)

    async def run() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(round(world.now, 2))

    slow.loop.create_task(run())
    world.after(1.5, slow.stand_still, 10)
    world.run(20)
    assert seen == [1, 11.5, 12.5]


def test_nothing_of_a_machine_that_died_runs_until_it_is_cleared_away() -> None:
    world, seen = World(), list[str]()
    dead = Machine(world, 1.0, 0.0)

    async def run() -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 1)
                await anyio.sleep(2)
        finally:
            seen.append("cleared")

    dead.loop.create_task(run())
    world.run(0.5)
    dead.die()
    world.run(20)
    assert seen == []
    dead.loop.close()
    assert seen == ["cleared"]
    assert dead.loop.errors == []


def test_a_task_that_waits_for_nothing_lets_time_go_by() -> None:
    world, seen = World(), list[float]()
    busy = Machine(world, 1.0, 0.0)

    async def run() -> None:
        until = anyio.current_time() + 0.01
        while anyio.current_time() < until:  # noqa: ASYNC110 - that is the question
            await asyncio.sleep(0)
        seen.append(world.now)

    busy.loop.create_task(run())
    world.run(1)
    assert seen == [pytest.approx(0.01, abs=0.001)]


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: anyio.run_process(["true"]),
    ],
)
def test_threads_sockets_and_processes_are_refused(forbidden: Any) -> None:
    world, seen = World(), list[type]()
    machine = Machine(world, 1.0, 0.0)

    async def run() -> None:
        with pytest.raises(NotImplementedError):
            await forbidden()
        seen.append(NotImplementedError)

    machine.loop.create_task(run())
    world.run(1)
    assert seen == [NotImplementedError]


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_is_a_literal(seed: int) -> None:
    assert eval(literal(random_schedule(seed)), vars(schedule)) == random_schedule(seed)


def test_a_failing_schedule_is_made_smaller() -> None:
    """The failure: two writes of one subject, of which one is late, and a crash."""

    def fails(tried: Schedule) -> bool:
        late = {write.subject for write in tried.writes if write.late}
        of_late = [write for write in tried.writes if write.subject in late]
        return len(of_late) > 1 and any(fault.kind == "crash" for fault in tried.faults)

    start = next(filter(fails, map(random_schedule, range(1000))))
    small = smaller(start, fails)
    assert fails(small)
    assert (len(small.writes), len(small.faults), small.replays) == (2, 1, ())
    assert small.clocks == (schedule.Clock(),)
