"""The loop in the process of each contestant: it answers orders, one per line, on standard input.

The first line that it prints names the lines that it can run. Then ``batch 2000`` means:
run line ``batch`` with 2,000 events. The answer is a JSON object with what it took.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, process_time
from typing import Any, NamedTuple

from benchmarks.sample_event import sample_events

BATCH = 100
"""The number of events in a batch."""

Found = dict[str, float]
"""What a line took, with the names of the fields of `Measured`."""


class Task(NamedTuple):
    """The measured work, and the function that prepares it from the events."""

    run: Callable[[Sequence[Any]], Awaitable[None]]
    prepare: Callable[[Sequence[bytes]], Sequence[Any]] = list

    async def measured(self, first: int, number: int) -> Found:
        """Run it with events `first` and those after it."""
        work = self.prepare(sample_events(first, number))
        began, busy = perf_counter(), process_time()
        await self.run(work)
        took, worked = perf_counter() - began, process_time() - busy
        return {"rate": number / took, "cpu": worked / number * 1e6}


class Line(NamedTuple):
    """A line that measures itself: a function of the first event and of the order's numbers."""

    measured: Callable[..., Awaitable[Found]]


def writing(
    write: Callable[[bytes], Awaitable[None]], store: Callable[[Sequence[bytes]], Awaitable[None]]
) -> dict[str, Task]:
    """The lines `single` and `batch` of functions that write one event, and a batch."""

    async def single(events: Sequence[bytes]) -> None:
        for event in events:
            await write(event)

    async def batch(batches: Sequence[Sequence[bytes]]) -> None:
        for events in batches:
            await store(events)

    return {"single": Task(single), "batch": Task(batch, in_batches)}


def in_batches(events: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Cut events into batches."""
    return [events[start : start + BATCH] for start in range(0, len(events), BATCH)]


async def serve(**lines: Task | Line) -> None:
    """Answer orders until the input ends. Nothing else is to run in this process meanwhile."""
    print(json.dumps(list(lines)), flush=True)
    first = 0
    for order in sys.stdin:
        name, number, *more = order.split()
        answer = await lines[name].measured(first, int(number), *map(int, more))
        print(json.dumps(answer), flush=True)
        first += int(number)
