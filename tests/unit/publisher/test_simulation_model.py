"""The machines and schedules of the simulation. What it finds: test_simulation.py."""

import asyncio
import subprocess
import sys
from typing import Any

import anyio
import pytest
from benchmarks.simulation.history import Arrival, History
from benchmarks.simulation.judge import Terms
from benchmarks.simulation.lanes import differences
from benchmarks.simulation.machines import Machine, World
from benchmarks.simulation.schedule import Clock, Schedule, Write
from benchmarks.simulation.simulate import terms_of
from benchmarks.simulation.verdict import examine
from tests.support.checkout import ROOT


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


@pytest.fixture
def both_lanes() -> tuple[History, History, Terms]:
    """A run with pages and one without: events 1 to 3 of S/0, and event 4 of S/1, which dies."""
    writes = (Write(0.0, 0, rows=3), Write(1.0, 1, retries=9))
    kept = Schedule(seed=1, shards=1, clocks=(Clock(),), writes=writes)
    ((pages,), _), ((rows,), _) = examine(kept), examine(kept, lane="rows")
    assert [*differences(pages, rows, terms_of(kept), blocks=False)] == []
    return pages, rows, terms_of(kept)


def test_a_message_that_arrives_in_one_lane_only_is_a_difference(
    both_lanes: tuple[History, History, Terms],
) -> None:
    pages, rows, terms = both_lanes
    del rows.arrivals[1:]
    assert [*differences(pages, rows, terms, blocks=True)] == [
        "event 2 of S/0 is delivered with pages, and left without",
        "event 3 of S/0 is delivered with pages, and left without",
    ]


def test_another_order_of_first_arrivals_is_a_difference(
    both_lanes: tuple[History, History, Terms],
) -> None:
    pages, rows, terms = both_lanes
    rows.arrivals.append(rows.arrivals[0])  # again: only the first one counts
    assert [*differences(pages, rows, terms, blocks=False)] == []
    rows.arrivals.append(rows.arrivals.pop(0)._replace(at=9.0))
    del rows.arrivals[-2]
    assert [*differences(pages, rows, terms, blocks=False)] == [
        "the events of S/0 first arrived in another order than without pages"
    ]


def test_attempts_of_a_dead_letter_may_differ_after_harm_only(
    both_lanes: tuple[History, History, Terms],
) -> None:
    pages, rows, terms = both_lanes
    (buried,) = (each for each in rows.changes if each.kind == "buried")
    rows.changes.append(buried._replace(attempts=4))
    assert [*differences(pages, rows, terms._replace(harmed=True), blocks=False)] == []
    assert [*differences(pages, rows, terms, blocks=False)] == [
        "event 4 of S/1 is buried after 3 attempts with pages, and buried after 4 attempts without"
    ]


def test_a_message_may_be_well_after_as_many_failures_as_it_may_have(
    both_lanes: tuple[History, History, Terms],
) -> None:
    """Failures that nobody recorded count for nobody; with fewer of them it cannot die."""
    pages, rows, terms = both_lanes
    (dead,) = (each.row for each in rows.changes if each.kind == "buried")
    rows.arrivals.append(Arrival(9.0, dead, "p0.1"))
    assert [*differences(pages, rows, terms, blocks=False)] == []
    rows.answers = [each for each in rows.answers if each.row != dead]
    assert [*differences(pages, rows, terms, blocks=False)] == [
        "event 4 of S/1 is buried after 3 attempts with pages, and delivered without"
    ]


def test_an_event_that_is_written_in_one_lane_only_is_a_difference(
    both_lanes: tuple[History, History, Terms],
) -> None:
    pages, rows, terms = both_lanes
    rows.committed.pop()
    assert [*differences(pages, rows, terms, blocks=False)] == [
        "1 events of S/1 were written with pages, and 0 without"
    ]
