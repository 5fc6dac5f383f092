"""A sink in memory, for tests of what an application publishes."""

import threading
from collections import defaultdict, deque
from collections.abc import Generator, Sequence
from uuid import UUID

import anyio

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Answer, Delivered, NotAttempted, Outcome, Tombstone


class MemorySink:
    """A sink that keeps every message that it gets, in the order of arrival.

    Its methods may be called from any thread and any event loop.
    """

    system = "memory"
    keeps_prefix = True
    takes = frozenset({Tombstone})

    def __init__(self) -> None:
        self.down = False
        """Set this to simulate a broker that is out of reach."""
        self._messages: list[Message] = []
        self._failures: defaultdict[UUID, deque[tuple[Outcome, bool]]] = defaultdict(deque)
        self._changed = threading.Condition()

    @property
    def messages(self) -> list[Message]:
        """The messages that have arrived so far."""
        with self._changed:
            return list(self._messages)

    @property
    def ids(self) -> list[UUID]:
        """The event ids of the messages that have arrived so far."""
        return [message.event_id for message in self.messages]

    def fail(self, event_id: UUID, *outcomes: Outcome, stored: bool = False) -> None:
        """Answer with these outcomes to the next tries to publish the event, one per try.

        With `stored`, the sink keeps the message anyway, as when a broker stores
        it and only the answer is lost.
        """
        with self._changed:
            self._failures[event_id].extend((outcome, stored) for outcome in outcomes)

    async def published(self, count: int, *, timeout: float = 30.0) -> list[Message]:
        """Wait until at least `count` messages have arrived, and return all of them.

        Raises `TimeoutError` after `timeout` seconds.
        """
        return await anyio.to_thread.run_sync(
            self.wait_published, count, timeout, abandon_on_cancel=True
        )

    def wait_published(self, count: int, timeout: float = 30.0) -> list[Message]:
        """Wait as `published` does, in a test that is not async."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages) >= count, timeout):
                raise TimeoutError(
                    f"{len(self._messages)} of {count} messages came within {timeout} s"
                )
            return list(self._messages)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Keep messages and answer for each; the relay calls this.

        Raises `SinkUnavailable` while `down` is set.
        """
        if self.down:
            raise SinkUnavailable("the memory sink is down")
        with self._changed:
            outcomes = list(self._outcomes(messages))
            self._changed.notify_all()
        for index, outcome in enumerate(outcomes):
            answer(index, outcome)

    def _outcomes(self, messages: Sequence[Message]) -> Generator[Outcome]:
        """Take messages; of a run, none behind one that failed."""
        failed: str | None = None
        for message in messages:
            outcome = NotAttempted() if message.key == failed else self._take(message)
            failed = None if outcome == Delivered() else message.key
            yield outcome

    def _take(self, message: Message) -> Outcome:
        failures = self._failures[message.event_id]
        outcome, stored = failures.popleft() if failures else (Delivered(), True)
        if stored:
            self._messages.append(message)
        return outcome
