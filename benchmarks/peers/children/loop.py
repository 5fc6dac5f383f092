"""The loop in the process of each contestant: it answers orders, one per line, on standard input.

The first line that it prints names the lines that it can run. Then ``batch 2000`` means:
write 2,000 events by line ``batch``. The answer is a JSON object with the cost.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, process_time
from typing import Any, NamedTuple

from benchmarks.sample_event import sample_events

BATCH = 100
"""The number of events in a batch."""


class Task(NamedTuple):
    """The measured work, and the function that prepares it from the events."""

    run: Callable[[Sequence[Any]], Awaitable[None]]
    prepare: Callable[[Sequence[bytes]], Sequence[Any]] = list


def in_batches(events: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Cut events into batches."""
    return [events[start : start + BATCH] for start in range(0, len(events), BATCH)]


async def serve(**tasks: Task) -> None:
    """Answer orders until the input ends. Nothing else is to run in this process meanwhile."""
    print(json.dumps(list(tasks)), flush=True)
    first = 0
    for order in sys.stdin:
        line, number = order.split()
        events = sample_events(first, int(number))
        first += len(events)
        print(json.dumps(await _measured(tasks[line], events)), flush=True)


async def _measured(task: Task, events: Sequence[bytes]) -> dict[str, float]:
    work = task.prepare(events)
    began, busy = perf_counter(), process_time()
    await task.run(work)
    took, worked = perf_counter() - began, process_time() - busy
    return {"rate": len(events) / took, "cpu": worked / len(events) * 1e6}
