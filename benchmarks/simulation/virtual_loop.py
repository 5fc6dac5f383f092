"""An asyncio event loop in virtual time: it runs when it is told to, and opens nothing.

Each simulated machine has its own loop and clock. So a machine can stand still (its loop is
not stepped) or die (its loop is never stepped again). No `finally` runs that would not run in
a killed process.
"""

import asyncio
import heapq
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_RESOLUTION: Final = 1e-6
"""Seconds: a timer that is due within this time runs now."""

_ROUNDS: Final = 20
"""The most rounds of callbacks in one step; those of a task that never rests come one by one."""

_CLEARINGS: Final = 100
"""How often `close` cancels what still runs."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """A loop for tasks, futures and timers; `clock` returns its time in seconds.

    Threads, sockets, processes and signals raise `NotImplementedError`. `errors` holds
    what asyncio reports instead of raising it, and `is_closing` says that `close` was
    called.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self.is_closing = False
        self.errors: list[str] = []

    # --- what steps it -----------------------------------------------------------------

    def due(self) -> float:
        """When there is something to run, by the clock of this loop; infinity: never."""
        if self._ready:
            return -math.inf
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        return timers[0][0] if timers else math.inf

    def step(self) -> None:
        """Run the callbacks that are due now, and those that become due through them."""
        now, timers, ready = self._clock() + _RESOLUTION, self._timers, self._ready
        while timers and timers[0][0] <= now:
            ready.append(heapq.heappop(timers)[2])
        events._set_running_loop(self)  # noqa: SLF001 - documented for loops
        try:
            for _ in range(_ROUNDS):
                if not ready:
                    break
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle.cancelled():
                        handle._run()  # noqa: SLF001 - as every loop does
        finally:
            events._set_running_loop(None)  # noqa: SLF001

    def close(self) -> None:
        """Cancel all tasks and let them end, so that nothing of them runs later."""
        self.is_closing = True
        for _ in range(_CLEARINGS):
            if not self._tasks:
                break
            for task in list(self._tasks):
                task.cancel()
            while self._ready:
                self.step()
        self._is_closed = True
        self._timers.clear()

    # --- what asyncio and anyio call ---------------------------------------------------

    def time(self) -> float:
        """The time of this loop, in seconds."""
        return self._clock()

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Run the callback at the next step."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run the callback after `delay` seconds."""
        return self.call_at(self._clock() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run the callback at `when`, a time of this loop in seconds."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """Return a new future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_task_factory(self) -> None:
        """There is none."""

    def get_debug(self) -> bool:
        """It never debugs."""
        return False

    def is_running(self) -> bool:
        """Whether a step runs."""
        return events._get_running_loop() is self  # noqa: SLF001

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio reports, until the loop is closed."""
        if not self.is_closing:
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio reports, too."""
        self.call_exception_handler(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer stays in the heap until its time."""
