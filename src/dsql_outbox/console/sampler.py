"""Reads the status at intervals, for the overview and its charts."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic, time
from typing import Final

import msgspec
import psycopg

from dsql_outbox.operations.status import (
    Bounded,
    Counts,
    Meter,
    Rates,
    Status,
    StatusReader,
)
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.redaction import error_text

from .samples import History, Sample

logger = logging.getLogger("dsql_outbox")

_REST: Final = 20
"""A long count is followed by a rest of so many times its duration: it takes 5 % at most."""


class Reading(msgspec.Struct, frozen=True):
    """The status at Unix time `at`, with the waiting messages of each shard and the rates.

    A number that is too long to be counted at each reading is that of the last long count, at
    `counted_at`; None if no number is.
    """

    number: int
    at: float
    status: Status
    backlogs: Mapping[int, Bounded]
    rates: Rates | None
    counted_at: float | None


class LongCount:
    """Counts what is too long to be counted at each reading, in its own time.

    `latest` is the last count, and the Unix time of it.
    """

    def __init__(self, database: Database, interval: float) -> None:
        self._reader = StatusReader(database, read_only=True)
        self._interval = interval
        self.latest: tuple[Counts, float] | None = None

    async def run(self) -> None:
        """Count until cancelled. Without an answer the last count stays as it is."""
        try:
            while True:
                began = monotonic()
                with suppress(OutboxError, psycopg.Error, OSError):
                    self.latest = await self._reader.read_counts(), time()
                await asyncio.sleep(max(self._interval, _REST * (monotonic() - began)))
        finally:
            await self._reader.close()


def _with_long_counts(
    status: Status, backlogs: Mapping[int, Bounded], counts: Counts
) -> tuple[Status, Mapping[int, Bounded]]:
    """The numbers of a reading, with those of a long count where the reading cut them."""
    failures = status.failures
    if failures.more and counts.failures.count > failures.count:
        failures = msgspec.structs.replace(counts.failures, worst=failures.worst)
    dead = _longer(status.dead_letters, counts.dead_letters)
    full = {
        shard: _longer(known, counts.backlogs.get(shard, known))
        for shard, known in backlogs.items()
    }
    return msgspec.structs.replace(status, failures=failures, dead_letters=dead), full


def _longer(known: Bounded, counted: Bounded) -> Bounded:
    """The long count of a number that was cut, unless that is out of date."""
    return counted if known.more and counted.count > known.count else known


class Sampler:
    """Takes a `Reading` every `interval` seconds, from `start` to `stop`.

    `latest` is the last reading. `problem` is the error of the last try, or None.
    `is_ending` makes streams end.
    """

    def __init__(self, database: Database, interval: float) -> None:
        self._reader = StatusReader(database, read_only=True)
        self._interval = interval
        self._meter = Meter()
        self._long_count = LongCount(database, interval)
        self._tasks: list[asyncio.Task[None]] = []
        self._ticked = asyncio.Event()
        self.history = History()
        self.latest: Reading | None = None
        self.problem: OutboxError | psycopg.Error | None = None
        self.tries = 0
        self.is_ending = False

    def end_streams(self) -> None:
        """Wake all waiters of `after`, because the server stops."""
        self.is_ending = True
        self._tick()

    def start(self) -> None:
        """Start, unless it runs."""
        if not self._tasks:
            runs = {"status": self._run(), "counts": self._long_count.run()}
            self._tasks = [
                asyncio.create_task(run, name=f"dsql-outbox-console {name}")
                for name, run in runs.items()
            ]

    async def stop(self) -> None:
        """Stop, and close the connections."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def after(self, tries: int) -> int:
        """Wait until there were more tries than `tries`. Returns how many there were."""
        while self.tries <= tries and not self.is_ending:
            await self._ticked.wait()
        return self.tries

    async def read(self) -> Reading:
        """The latest reading. Raises the error of the last try if there is none."""
        self.start()
        await self.after(0)
        if self.latest is None:
            assert self.problem is not None  # noqa: S101 - a try ends with one or the other
            raise self.problem
        return self.latest

    async def _run(self) -> None:
        try:
            while True:
                began = monotonic()
                await self._try()
                await asyncio.sleep(max(0.1, began + self._interval - monotonic()))
        finally:
            await self._reader.close()

    async def _try(self) -> None:
        try:
            self.latest = await self._look()
            self.problem = None
        except (OutboxError, psycopg.Error) as error:
            self.problem = error.with_traceback(None)
        except Exception as error:  # such as no descriptor left; pages wait for an answer
            if self.problem is None:
                logger.exception("console: the status cannot be read")
            self.problem = OutboxError(f"the status cannot be read: {error_text(error)}")
        self.tries += 1
        self._tick()

    def _tick(self) -> None:
        # An event per tick, so that no waiter misses one, and none gets it twice.
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def _look(self) -> Reading:
        status = await self._reader.read()
        backlogs: Mapping[int, Bounded] = await self._reader.read_backlogs()
        rates = self._meter.rates(await self._reader.read_counters(), monotonic())
        read, counted_at = (status, backlogs), None
        if self._long_count.latest is not None:
            counts, counted_at = self._long_count.latest
            status, backlogs = _with_long_counts(status, backlogs, counts)
        is_cut = (status, backlogs) != read
        found = Reading(
            self.tries + 1, time(), status, backlogs, rates, counted_at if is_cut else None
        )
        self.history.add(_sample(found))
        return found


def _sample(found: Reading) -> Sample:
    counted = found.backlogs.values()
    return Sample(
        at=found.at,
        waiting=sum(each.count for each in counted),
        more=any(each.more for each in counted),
        oldest_seconds=found.status.oldest_seconds or 0.0,
        written=None if found.rates is None else found.rates.in_per_second,
        delivered=None if found.rates is None else found.rates.out_per_second,
    )
