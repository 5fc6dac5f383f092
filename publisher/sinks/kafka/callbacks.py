"""Bring the callbacks of librdkafka into the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable


class Callbacks:
    """A queue of calls: callbacks add to it from any thread, and the event loop makes the calls.

    confluent-kafka may run a callback while an exception of an earlier callback is
    still pending. Then each function written in C takes effect and also raises
    `SystemError`. A lock that the callback takes stays locked, also one of `logging`.
    So a callback only calls `soon`, and `soon` stores the call before anything can
    fail.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._is_due = False

    def attach(self) -> None:
        """Use the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def soon(self, call: Callable[..., None], *args: object) -> None:
        """Schedule a call in the event loop; may be called from any thread."""
        self._calls.append((call, args))
        if self._loop is not None and not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self.run)

    def run(self) -> None:
        """Make the waiting calls, in their order; must be called in the event loop."""
        self._is_due = False  # first: a call that is added after the loop must schedule `run` again
        while self._calls:
            call, args = self._calls.popleft()
            call(*args)
