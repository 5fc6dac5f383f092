"""Ctrl-C and SIGTERM: first finish what is in hand, then stop at once."""

import math
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from .logs import announce

_SHELL_BASE = 128  # a shell reports death by signal N as 128 + N


class Interruption:
    """What signals have asked for so far.

    The first SIGINT or SIGTERM asks `stop` to end the work in order, which may
    take `limit` seconds. A SIGINT after that, or the end of this time, cancels
    the work. A second SIGTERM changes nothing: supervisors and wrappers may
    send several.
    """

    def __init__(self, stop: Callable[[], None], *, limit: float = math.inf) -> None:
        self._stop = stop
        self._limit = limit
        self.first: signal.Signals | None = None
        self.at_once = False
        self.overdue = False

    @property
    def exit_code(self) -> int:
        """As a shell shows it: 130 after SIGINT, 143 after SIGTERM, 0 without a signal."""
        return _SHELL_BASE + self.first if self.first else 0

    async def run(
        self, work: Callable[[], Awaitable[None]], *beside: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Do the work while listening to signals; raises what the work raises.

        What runs `beside` it is cancelled when the work is done, and must not raise.
        """
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            await group.start(self._listen, group)
            for task in beside:
                group.start_soon(task)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the group would wrap it in another
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _listen(self, group: TaskGroup, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for found in received:
                if self.first is None:
                    self.first = found
                    self._stop()
                    group.start_soon(self._end_when_overdue, group.cancel_scope)
                    announce("finishing what is in hand; Ctrl-C stops at once")
                elif found == signal.SIGINT:
                    self.at_once = True
                    group.cancel_scope.cancel()
                    return

    async def _end_when_overdue(self, scope: anyio.CancelScope) -> None:
        await anyio.sleep(self._limit)
        self.overdue = True
        scope.cancel()
