"""The lines of a writer and a relay in two processes. Only the standard library.

Each event carries the time at which its write was called, as its number: two processes of a
machine share that clock. So the relay's process knows how long an event was on its way.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from time import perf_counter, perf_counter_ns

from benchmarks.sample_event import SUBJECTS, event

from .loop import Found, Line
from .relayed import CountingSink, RelayDuring, number_of

LONE = (2.0, 4.0)
"""Seconds between two events of the rate 0: long enough that the relay is idle before each."""

LANES = 8
"""The most writes at a time."""

_STRAGGLERS = 3  # seconds for which the relay goes on after the writer


class _Timed(CountingSink):
    """Notes how long each event was on its way, in milliseconds."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.delays: list[float] = []

    def take(self, payload: bytes) -> None:
        """Take a message; any thread may call it."""
        self.delays.append((perf_counter_ns() - number_of(payload)) / 1e6)


def sending(write: Callable[[bytes], Awaitable[None]]) -> Line:
    """Write `rate` events per second, 0 for lone ones, for `seconds`, and tell `every` so many.

    It answers with the events since the last answer, and with the times of their writes.
    """

    async def send(_: int, rate: int, seconds: int, every: int) -> Found:
        free, took = asyncio.Semaphore(LANES), list[float]()

        async def one(number: int) -> None:
            began = perf_counter_ns()
            try:
                await write(event(f"CAR-{number % SUBJECTS}", began))
            finally:
                free.release()
            took.append((perf_counter_ns() - began) / 1e6)

        began, at, tells_at, number = perf_counter(), 0.0, float(every), 0
        async with asyncio.TaskGroup() as writes:
            while at < seconds and perf_counter() - began < seconds:
                await asyncio.sleep(max(0, began + at - perf_counter()))
                while tells_at < seconds and perf_counter() - began >= tells_at:
                    _tell(took)
                    tells_at += every
                await free.acquire()
                writes.create_task(one(number))
                number += 1
                at += 1 / rate if rate else random.uniform(*LONE)
        return _taken(took)

    return Line(send)


def receiving(relay: RelayDuring) -> Line:
    """Relay for `seconds` and a little more, and tell `every` so many seconds.

    It tells once more when the relay has started.
    """

    async def receive(_: int, seconds: int, every: int) -> Found:
        sink = _Timed()
        async with relay(sink):
            began = perf_counter()
            _tell(sink.delays)
            for tells_at in range(every, seconds, every):
                await asyncio.sleep(began + tells_at - perf_counter())
                _tell(sink.delays)
            await asyncio.sleep(began + seconds + _STRAGGLERS - perf_counter())
        return _taken(sink.delays)

    return Line(receive)


def _tell(times: list[float]) -> None:
    print(json.dumps(_taken(times)), flush=True)


def _taken(times: list[float]) -> Found:
    """Their number and percentiles; none is left."""
    found, times[:] = sorted(times), ()
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    last = len(found) - 1
    return {"events": len(found)} | {
        name: found[round(last * part)] if found else 0.0 for name, part in at.items()
    }
