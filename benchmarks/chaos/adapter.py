"""An adapter for the harness of hardbyte/postgresql-job-queue-benchmarking: one process.

Its settings come from the environment, and each line of its output is a JSON object, as the
harness's CONTRIBUTING_ADAPTERS.md says. A job is an event, and a worker a slot of a sink that
needs ``JOB_WORK_MS`` for a message. It uses public names only. With ``DELIVERIES_FILE`` each
finished job is a line of that file, which outlives the process: the driver of this folder finds
lost jobs, duplicates and jobs out of order there.
"""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from time import monotonic, time, time_ns
from typing import Any, Final, NamedTuple

import psycopg

from dsql_outbox import (
    AsyncWriter,
    Database,
    Entity,
    Event,
    Publisher,
    PublisherSettings,
    Receipt,
    WriterSettings,
)
from dsql_outbox.operations import StatusReader
from dsql_outbox.outbox import Message, OutboxError
from dsql_outbox.publisher import Answer, Delivered
from dsql_outbox.schema import apply

SYSTEM: Final = "dsql-outbox"
_MANIFEST: Final = json.loads((Path(__file__).parent / "adapter.json").read_bytes())
_SUBJECTS: Final = 1_000
_WINDOW: Final = 30.0  # seconds of the latencies
_TICK: Final = 0.025  # seconds between two batches of the producer
_BATCH: Final = 128
_LOOK: Final = 0.25  # seconds between two counts of the depth
_STOP: Final = 4.0  # seconds, of the 5 that the harness gives
_DELIVERED: Final = Delivered()


class Given(NamedTuple):
    """The settings in the environment, with the defaults of the harness's adapters."""

    url: str
    rate: float
    rate_file: Path | None
    depth: int | None
    workers: int
    payload: int
    work: float
    every: float
    instance: int
    produces: bool
    deliveries: Path | None

    @classmethod
    def of(cls, environment: "os._Environ[str]") -> "Given":
        def number(name: str, default: float) -> float:
            return float(environment.get(name) or default)

        def path(name: str) -> Path | None:
            return Path(environment[name]) if environment.get(name) else None

        instance = int(number("BENCH_INSTANCE_ID", 0))
        return cls(
            url=environment["DATABASE_URL"],
            rate=number("PRODUCER_RATE", 800),
            rate_file=path("PRODUCER_RATE_CONTROL_FILE"),
            depth=int(number("TARGET_DEPTH", 1_000))
            if environment.get("PRODUCER_MODE") == "depth-target"
            else None,
            workers=int(number("WORKER_COUNT", 32)),
            payload=int(number("JOB_PAYLOAD_BYTES", 256)),
            work=number("JOB_WORK_MS", 1) / 1000,
            every=number("SAMPLE_EVERY_S", 5),
            instance=instance,
            produces=instance == 0 or not number("PRODUCER_ONLY_INSTANCE_ZERO", 0),
            deliveries=path("DELIVERIES_FILE"),
        )

    def target_rate(self) -> float:
        """The rate of now: the harness changes it through a file."""
        with suppress(OSError, ValueError):
            return float(self.rate_file.read_text()) if self.rate_file else self.rate
        return self.rate


class Workers:
    """A sink with ``WORKER_COUNT`` slots. A message is claimed when it has a slot."""

    system = "bench"

    def __init__(self, given: Given) -> None:
        self._slots = asyncio.Semaphore(given.workers)
        self._work = given.work
        self._file = given.deliveries.open("ab", buffering=0) if given.deliveries else None
        self.done = 0
        self.claims: deque[tuple[float, float]] = deque(maxlen=1 << 15)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        async with asyncio.TaskGroup() as group:
            for index, message in enumerate(messages):
                group.create_task(self._do(index, message, answer))

    async def _do(self, index: int, message: Message, answer: Answer) -> None:
        async with self._slots:
            self.claims.append((monotonic(), (time_ns() - message.committed_ns) / 1e6))
            await asyncio.sleep(self._work)
            if self._file is not None:
                sequence = message.headers["sequence"]
                self._file.write(f"{message.key} {sequence} {message.event_id}\n".encode())
            self.done += 1
            answer(index, _DELIVERED)


class Adapter:
    """Producer, workers and sampler, until SIGTERM."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._database = Database(given.url)
        self._workers = Workers(given)
        self._stored = 0
        self._depth = 0
        self._publisher: Publisher | None = None
        self._is_stopped = False

    async def run(self) -> None:
        self._describe()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        relaying = asyncio.create_task(self._relay())
        others = [asyncio.create_task(each) for each in (self._count(), self._sample())]
        others += [asyncio.create_task(self._produce())] * self._given.produces
        await asyncio.wait({relaying, *others}, return_when=asyncio.FIRST_COMPLETED)
        for each in others:
            each.cancel()
        done, _ = await asyncio.wait({relaying, *others}, timeout=_STOP)
        for each in done:
            if not each.cancelled():
                each.result()

    def _stop(self) -> None:
        self._is_stopped = True
        if self._publisher is not None:
            self._publisher.stop()

    async def _relay(self) -> None:
        """Relay until the stop. A publisher that fails at its start is replaced."""
        while not self._is_stopped:
            try:
                await asyncio.to_thread(apply, self._database)
                self._publisher = Publisher(
                    self._database, self._workers, PublisherSettings(drain=_STOP - 1)
                )
                await self._publisher.run()
            except (OutboxError, psycopg.Error) as error:
                print(f"the publisher starts again after: {error}", file=sys.stderr)
                await asyncio.sleep(_LOOK)

    async def _produce(self) -> None:
        """Store jobs at the target rate. Jobs that are not stored are stored later."""
        given, numbers, owed, last = self._given, count(), 0.0, monotonic()
        padding = "x" * max(0, given.payload - 160)
        async with AsyncWriter(self._database, WriterSettings(max_connections=4)) as writer:
            while True:
                now = monotonic()
                owed, last = owed + (now - last) * given.target_rate(), now
                if given.depth is not None:
                    owed = max(0.0, given.depth - self._depth)
                number = min(_BATCH, int(owed))
                owed -= number
                jobs = [_job(given.instance, next(numbers), padding) for _ in range(number)]
                while jobs:
                    try:
                        outcomes = await writer.write_many(jobs, on_duplicate="return")
                    except (OutboxError, psycopg.Error):
                        outcomes = []
                    stored = [isinstance(each, Receipt) for each in outcomes]
                    self._stored += sum(stored)
                    left = stored or [False] * len(jobs)
                    jobs = [job for job, done in zip(jobs, left, strict=True) if not done]
                    await asyncio.sleep(_LOOK if jobs else 0)
                await asyncio.sleep(_TICK if owed < _BATCH else 0)

    async def _count(self) -> None:
        """Count the jobs that wait. Without an answer the last number stays."""
        async with StatusReader(self._database, read_only=True) as reader:
            while True:
                with suppress(OutboxError, psycopg.Error):
                    counts = await reader.read_counts()
                    self._depth = sum(each.count for each in counts.backlogs.values())
                await asyncio.sleep(_LOOK)

    async def _sample(self) -> None:
        given, stored, done, last = self._given, 0, 0, monotonic()
        while True:
            # All systems are sampled at the same times; never twice at one.
            await asyncio.sleep(given.every - time() % given.every + 0.005)
            took, last = monotonic() - last, monotonic()
            found = {
                "enqueue_rate": round((self._stored - stored) / took, 1),
                "completion_rate": round((self._workers.done - done) / took, 1),
            }
            stored, done = self._stored, self._workers.done
            self._emit(_claims(self._workers.claims), _WINDOW)
            self._emit(found, given.every)
            if given.instance == 0:
                self._emit({"queue_depth": self._depth}, 0)
                self._emit({"producer_target_rate": given.target_rate()}, 0)

    def _emit(self, metrics: dict[str, float], window: float) -> None:
        for metric, value in metrics.items():
            kinds = {"kind": "adapter", "subject_kind": "adapter", "subject": ""}
            sample = {"metric": metric, "value": value, "window_s": window}
            self._say({"t": _now(), "system": SYSTEM, **kinds, **sample})

    def _describe(self) -> None:
        known = {"version": version(SYSTEM), "schema_version": version(SYSTEM)}
        tables = {name: _MANIFEST[name] for name in ("event_tables", "extensions")}
        at = {"db_name": self._given.url.rpartition("/")[2], "started_at": _now()}
        self._say({"kind": "descriptor", "system": SYSTEM, **tables, **known, **at})

    def _say(self, record: dict[str, Any]) -> None:
        print(json.dumps(record | {"instance_id": self._given.instance}), flush=True)


def _job(instance: int, number: int, padding: str) -> Event:
    subject = Entity("Job", f"queue-{instance}-{number % _SUBJECTS}", {"padding": padding})
    return Event.new("JobEnqueued", [subject])


def _claims(claims: deque[tuple[float, float]]) -> dict[str, float]:
    """The percentiles of the last 30 seconds."""
    values = sorted(value for at, value in claims if at >= monotonic() - _WINDOW)
    if not values:
        return {}
    last = len(values) - 1
    return {f"claim_p{p}_ms": round(values[round(last * p / 100)], 3) for p in (50, 95, 99)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    if os.environ.get("SCENARIO", "long_horizon") != "long_horizon":
        sys.exit(f"unknown SCENARIO {os.environ['SCENARIO']!r}: this adapter has long_horizon")
    asyncio.run(Adapter(Given.of(os.environ)).run())
