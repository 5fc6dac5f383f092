"""The processes of an adapter: start, kill, end, and the samples that they print."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, NamedTuple

STOP = 5.0
"""Seconds that the harness gives an adapter to end after SIGTERM."""

_START = 120.0  # seconds until a process works


class Sample(NamedTuple):
    at: float
    """By the monotonic clock of this process."""
    instance: int
    metric: str
    value: float


class Replica:
    """One instance of the adapter. After `kill`, `start` begins a new process."""

    def __init__(self, instance: int, environment: dict[str, str], log: IO[bytes]) -> None:
        self._environment = environment | {"BENCH_INSTANCE_ID": str(instance)}
        self._log = log
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._began = 0.0
        self.samples: list[Sample] = []

    async def works(self) -> None:
        """Wait until the last process that was started has finished a job."""
        async with asyncio.timeout(_START):
            while not any(self._is_work(each) for each in self.samples):  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.1)

    def _is_work(self, sample: Sample) -> bool:
        return sample.metric == "completion_rate" and sample.value > 0 and sample.at > self._began

    async def start(self) -> None:
        self._began = monotonic()
        words = (sys.executable, "-m", "benchmarks.chaos.adapter")
        self._process = await asyncio.create_subprocess_exec(
            *words, env=os.environ | self._environment, stdout=PIPE, stderr=self._log
        )
        self._reading = asyncio.create_task(self._read(self._process))

    async def kill(self) -> None:
        """Kill the process, as ``docker kill`` does."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def end(self) -> float | None:
        """Send SIGTERM. Returns the seconds until the process ended; None if it failed."""
        process, began = self._process, monotonic()
        if process is None or process.returncode is not None:
            return None  # it has ended by itself
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 4 * STOP)
        except TimeoutError:
            await self.kill()
        return monotonic() - began if process.returncode == 0 else None

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            found = json.loads(line)
            if found["kind"] == "adapter":
                sample = (found["instance_id"], found["metric"], found["value"])
                self.samples.append(Sample(monotonic(), *sample))


class Deliveries(NamedTuple):
    """The verdict on the jobs that all processes finished, in the order of their file."""

    lost: int
    duplicates: int
    out_of_order: int


def deliveries(file: Path, stored: set[str]) -> Deliveries:
    """Compare the finished jobs with the stored events. Only first deliveries have an order."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    repeated = out_of_order = 0
    for line in file.read_text().splitlines():
        key, sequence, event_id = line.split(" ")
        if event_id in seen:
            repeated += 1
            continue
        seen.add(event_id)
        out_of_order += int(sequence) < last.get(key, 0)
        last[key] = max(int(sequence), last.get(key, 0))
    return Deliveries(len(stored - seen), repeated, out_of_order)
