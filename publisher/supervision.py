"""Work that runs in the background of a block and whose error ends the block."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio


@asynccontextmanager
async def in_background(
    run: Callable[[Callable[[], None]], Awaitable[object]], stop: Callable[[], None]
) -> AsyncGenerator[None]:
    """Run something until the block ends, then call `stop` and wait for its end.

    `run` gets a function to call when it has started; the block begins then. Raises the
    errors of `run`. If it ends with an error while the block runs, the block is cancelled and
    the error raised in its place.
    """
    started, ended = anyio.Event(), anyio.Event()
    errors: list[Exception] = []

    async def supervise() -> None:
        try:
            await run(started.set)
        except Exception as error:  # noqa: BLE001 - raised below, without a group
            errors.append(error)
            tasks.cancel_scope.cancel()
        finally:
            started.set()
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervise)
        try:
            await started.wait()
            yield
        except Exception as error:  # noqa: BLE001 - raised below, without a group
            errors.append(error)
        finally:
            stop()
            with anyio.CancelScope(shield=True):
                await ended.wait()
    if errors:
        raise errors[0]
