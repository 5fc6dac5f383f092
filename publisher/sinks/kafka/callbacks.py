"""From librdkafka's callbacks into the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable


class Callbacks:
    """Calls that a callback asks for in whatever thread, made in the event loop.

    A callback may run while the exception of an earlier one waits to be raised.
    Then each call that it makes to a function written in C takes effect and
    raises `SystemError` all the same: a lock that was just taken stays locked,
    in `logging` too. So a callback calls `soon` and does nothing else, and
    `soon` keeps the call before anything can fail.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._is_due = False

    def attach(self) -> None:
        """Make the calls in the running event loop, from now on."""
        self._loop = asyncio.get_running_loop()

    def soon(self, call: Callable[..., None], *args: object) -> None:
        """Make this call in the event loop; asked from any thread."""
        self._calls.append((call, args))
        if self._loop is not None and not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self.run)

    def run(self) -> None:
        """Make the calls that wait, in their order; asked from the event loop."""
        self._is_due = False  # before the last look: what comes after it asks again
        while self._calls:
            call, args = self._calls.popleft()
            call(*args)
