"""What wakes an activity of the relay."""

import math

import anyio
import pytest

from dsql_outbox.publisher.relay.state import Wake

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seconds", [math.inf, 60.0])
async def test_an_activity_that_waits_is_woken(seconds: float) -> None:
    wake, woken = Wake(), list[bool]()

    async def wait() -> None:
        woken.append(await wake.wait(seconds))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            wake.set()
            wake.set()
    assert woken == [True]


@pytest.mark.parametrize("seconds", [math.inf, 60.0, 0.0, -1.0])
async def test_a_call_that_came_before_the_wait_ends_one_wait(seconds: float) -> None:
    wake = Wake()
    wake.set()
    with anyio.fail_after(10):
        assert await wake.wait(seconds)
        assert not await wake.wait(0.001)


async def test_a_call_is_kept_when_the_wait_is_cancelled() -> None:
    wake = Wake()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wake.wait, math.inf)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            wake.set()
    with anyio.fail_after(10):
        assert await wake.wait(math.inf)
