"""The queue of one worker: bounded in events and in bytes."""

import anyio
import pytest

from dsql_outbox.cli.write.inputs import InputLocation
from dsql_outbox.cli.write.loader import QueuedEvent, WorkQueue
from dsql_outbox.outbox import Entity, Event, parse_event

pytestmark = pytest.mark.anyio

EVENT = parse_event(Event.new("Car Sold", "CarSold", [Entity("Car", "CAR-1")]))


def job(n: int = 1, size: int = 400) -> QueuedEvent:
    return QueuedEvent(n, InputLocation("-", n, 0), EVENT, size)


async def filled(lane: WorkQueue, size: int) -> int:
    """How many jobs of a size the lane takes before its reader has to wait."""
    put = 0

    async def fill() -> None:
        nonlocal put
        while True:
            await lane.put(job(put, size))
            put += 1

    async with anyio.create_task_group() as group:
        group.start_soon(fill)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    return put


@pytest.mark.parametrize(
    ("size", "held"), [(400, 500), (1 << 18, 4), ((1 << 20) - 1, 1), (1 << 22, 1)]
)
async def test_a_lane_holds_few_events_and_few_bytes_or_one_big_event(size: int, held: int) -> None:
    assert await filled(WorkQueue(500), size) == held


async def test_a_worker_takes_what_is_at_hand_and_makes_room_for_it() -> None:
    lane = WorkQueue(500)
    assert await filled(lane, 1 << 18) == 4
    assert [taken.place.record for taken in await lane.take(3)] == [0, 1, 2]
    assert await filled(lane, 1 << 18) == 3
    assert len(await lane.take(100)) == 4


async def test_a_closed_lane_gives_what_it_holds_and_then_nothing() -> None:
    lane = WorkQueue(8)
    await lane.put(job())
    lane.close()
    assert len(await lane.take(8)) == 1
    assert await lane.take(8) == []


async def test_a_waiting_worker_gets_a_job_as_soon_as_it_comes_and_sees_the_end() -> None:
    lane, taken = WorkQueue(8), list[int]()

    async def work() -> None:
        while jobs := await lane.take(8):
            taken.append(len(jobs))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        await lane.put(job())
        await anyio.wait_all_tasks_blocked()
        assert taken == [1]
        lane.close()
