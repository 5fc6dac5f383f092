"""The same trivial sink for every relay, and the lines that measure a relay.

The sink is a function in the process of the relay that notes a message and acknowledges
it, so that the library itself is measured and no broker. Only the standard library.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter, process_time

from benchmarks.sample_event import event, sample_events

from .loop import Found, Line, in_batches

PER_KEY = 10
"""Consecutive events per key in the line `ordered`."""

_PATIENCE = 60.0  # seconds until all messages must have arrived


class CountingSink:
    """Notes each message: when it came, and whether it came before one of its key that is older."""

    def __init__(self, expected: int) -> None:
        self.times: dict[int, float] = {}
        self.disordered = 0
        self._expected = expected
        self._newest: dict[bytes, int] = {}
        self._loop = asyncio.get_running_loop()
        self._all = asyncio.Event()

    def take(self, payload: bytes) -> None:
        """Take a message; any thread may call it."""
        key, n = key_of(payload), number_of(payload)
        self.disordered += self._newest.get(key, -1) > n
        self._newest[key] = n
        self.times.setdefault(n, perf_counter())
        if len(self.times) == self._expected:
            self._loop.call_soon_threadsafe(self._all.set)

    async def all(self) -> None:
        """Wait until every message has come. Raises `TimeoutError` after a minute."""
        async with asyncio.timeout(_PATIENCE):
            await self._all.wait()


Store = Callable[[Sequence[bytes]], Awaitable[None]]
"""Stores a batch of events."""

RelayDuring = Callable[[CountingSink], AbstractAsyncContextManager[object]]
"""Relays to the sink during the block."""


def relaying(store: Store, relay: RelayDuring) -> Line:
    """RelayDuring events of subjects that differ, which were stored before the clock starts."""
    return Line(lambda first, number: _drained(store, relay, sample_events(first, number)))


def ordered(store: Store, relay: RelayDuring) -> Line:
    """The same, with `PER_KEY` consecutive events per key."""
    return Line(lambda first, number: _drained(store, relay, ordered_events(first, number)))


def ordered_events(first: int, number: int) -> list[bytes]:
    """Events `first` and those after it, `PER_KEY` consecutive ones per key."""
    return [event(f"CAR-{n // PER_KEY}", n) for n in range(first, first + number)]


def key_of(payload: bytes) -> bytes:
    """The id of the entity of a sample event."""
    return payload.partition(b'"entityId":"')[2].partition(b'"')[0]


def number_of(payload: bytes) -> int:
    """The number of a sample event."""
    return int(payload.partition(b'"n":')[2].partition(b",")[0])


async def _drained(store: Store, relay: RelayDuring, events: Sequence[bytes]) -> Found:
    for each in in_batches(events):
        await store(each)
    sink = CountingSink(len(events))
    began, busy = perf_counter(), process_time()
    async with relay(sink):
        await sink.all()
        worked = process_time() - busy
    took = max(sink.times.values()) - began
    return {
        "rate": len(events) / took,
        "cpu": worked / len(events) * 1e6,
        "disordered": sink.disordered,
    }
