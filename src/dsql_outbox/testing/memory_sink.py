"""A broker in memory, for tests of what an application publishes."""

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from uuid import UUID

import anyio

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher import Delivered, Outcome


class MemorySink:
    """A sink that keeps every message it is given, in the order of arrival.

    It may be used and waited for from any thread and any event loop.
    """

    ordered = False
    system = "memory"

    def __init__(self) -> None:
        self.down = False
        """Whether the broker as a whole cannot be reached."""
        self._messages: list[Message] = []
        self._failures: defaultdict[UUID, deque[tuple[Outcome, bool]]] = defaultdict(deque)
        self._changed = threading.Condition()

    @property
    def messages(self) -> list[Message]:
        """What arrived so far."""
        with self._changed:
            return list(self._messages)

    @property
    def ids(self) -> list[UUID]:
        """The event ids of what arrived so far."""
        return [message.event_id for message in self.messages]

    def fail(self, event_id: UUID, *outcomes: Outcome, stored: bool = False) -> None:
        """Answer these outcomes, one a time, when the event's message comes next.

        `stored`: it is kept all the same, as when only the answer gets lost.
        """
        with self._changed:
            self._failures[event_id].extend((outcome, stored) for outcome in outcomes)

    async def published(self, count: int, *, timeout: float = 5.0) -> list[Message]:
        """Wait until at least `count` messages are here, and return all that are.

        Raises `TimeoutError` after `timeout` seconds.
        """
        return await anyio.to_thread.run_sync(
            self.wait_published, count, timeout, abandon_on_cancel=True
        )

    def wait_published(self, count: int, timeout: float = 5.0) -> list[Message]:
        """The same as `published`, for tests that are not async."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages) >= count, timeout):
                raise TimeoutError(
                    f"{len(self._messages)} of {count} messages came within {timeout} s"
                )
            return list(self._messages)

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        """Keep messages; for the relay. Raises `SinkUnavailable` while `down`."""
        if self.down:
            raise SinkUnavailable("the memory sink is down")
        with self._changed:
            outcomes = [self._take(message) for message in messages]
            self._changed.notify_all()
        return outcomes

    def _take(self, message: Message) -> Outcome:
        failures = self._failures[message.event_id]
        outcome, stored = failures.popleft() if failures else (Delivered(), True)
        if stored:
            self._messages.append(message)
        return outcome
