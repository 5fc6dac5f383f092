"""The machines and schedules of the simulation. What it finds: test_simulation.py."""

import asyncio
import subprocess
import sys
from typing import Any

import anyio
import pytest
from benchmarks.simulation import schedule
from benchmarks.simulation.machines import Machine, World
from benchmarks.simulation.random_schedules import random_schedule
from benchmarks.simulation.schedule import Schedule
from benchmarks.simulation.smaller import literal, smaller
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


def test_a_schedule_is_a_literal() -> None:
    for seed in range(20):
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
