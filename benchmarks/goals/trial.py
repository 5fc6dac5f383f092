"""A sink that answers as a trial demands, and publishers that run against it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from benchmarks.telemetry import metered

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Delivered, Publisher, PublisherSettings, Retry, Sink

PATIENCE = 60.0
"""Seconds to wait for deliveries; a trial that takes longer measures this."""

Which = Callable[[Message], bool]

_DELIVERED, _FAILED = Delivered(), Retry("refused by the trial")


class TrialSink:
    """A sink that answers a call after `delay` seconds, and fails what `fails` says.

    `delivered` has the time of each delivery that `counts`, and the message's key.
    """

    system = "null"

    def __init__(
        self,
        delay: float = 0.0,
        *,
        fails: Which = lambda _: False,
        counts: Which = lambda _: True,
    ) -> None:
        self._delay = delay
        self._fails = fails
        self._counts = counts
        self._wanted = 0
        self._reached = asyncio.Event()
        self.delivered: list[tuple[float, str]] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        now = perf_counter()
        for index, message in enumerate(messages):
            if self._fails(message):
                answer(index, _FAILED)
            else:
                if self._counts(message):
                    self.delivered.append((now, message.key))
                answer(index, _DELIVERED)
        if len(self.delivered) >= self._wanted:
            self._reached.set()

    async def until(self, number: int) -> float:
        """Wait for deliveries that count. Returns the time of the last, or when patience ended."""
        self._wanted = number
        self._reached.clear()
        if len(self.delivered) < number:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._reached.wait()
            except TimeoutError:
                return perf_counter()
        return self.delivered[number - 1][0]


def publishing(
    url: str,
    sink: Sink,
    body: Callable[[], Awaitable[float]],
    *,
    settings: PublisherSettings | None = None,
    hooks: Sequence[Hook] = (),
) -> Awaitable[float]:
    """Run `body` beside a publisher with metrics, and return its result."""

    async def run() -> float:
        with metered() as metrics:
            async with Publisher(Database(url), sink, settings, hooks=[metrics, *hooks]):
                return await body()

    return run()
