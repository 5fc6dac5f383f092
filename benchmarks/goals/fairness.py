"""What a failed attempt costs; few rows behind failing ones, and beside a hot subject."""

import asyncio
import statistics
from contextlib import suppress
from time import perf_counter

import psycopg
from benchmarks.relay.drain import LapSink
from benchmarks.relay.rows import Rows, arrive, fill, new_database

from dsql_outbox.outbox import Message

from .conditions import Conditions
from .trial import PATIENCE, TrialSink, publishing

_SLOW = 0.005  # seconds until the sink answers
_SUBJECTS = 500
_POLL = 0.05


def failed(conditions: Conditions) -> list[float]:
    """CPU of a failed attempt in us, with a slow and a fast sink."""
    return [
        statistics.median(
            asyncio.run(_failed(conditions, delay)) for _ in range(conditions.sizes.rounds)
        )
        for delay in (_SLOW, 0.0)
    ]


def behind(conditions: Conditions) -> list[float]:
    """Seconds until the first healthy row behind as many failing subjects."""

    async def first() -> float:
        url = new_database(conditions.server, "behind")
        fill(url, Rows(conditions.sizes.rows, name="BAD-"))
        fill(url, Rows(1_000, name="CAR-"))
        sink = TrialSink(_SLOW, fails=_is_bad)
        began = perf_counter()
        return await publishing(url, sink, lambda: sink.until(1)) - began

    return [asyncio.run(first())]


def hot(conditions: Conditions) -> list[float]:
    """Seconds until the last of 500 subjects beside a hot one: at start, live, after a restart."""
    return [asyncio.run(each(conditions)) for each in (_hot_at_start, _hot_live, _hot_restarted)]


async def _failed(conditions: Conditions, delay: float) -> float:
    """CPU in us of an attempt, where the first two of each of many subjects fail."""
    url, rows = new_database(conditions.server, "failed"), conditions.sizes.rows
    fill(url, Rows(rows, name="BAD-"))
    sink = LapSink(TrialSink(delay, fails=_is_bad))

    async def attempts() -> float:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while sink.laps.rows < 2 * rows:  # noqa: ASYNC110 - a poll is enough
                    await asyncio.sleep(_POLL)
        return sink.laps.drained.cpu

    return await publishing(url, sink, attempts)


async def _hot_at_start(conditions: Conditions) -> float:
    url, sink = _with_hot(conditions)
    fill(url, Rows(_SUBJECTS))
    began = perf_counter()
    return await publishing(url, sink, lambda: sink.until(_SUBJECTS)) - began


async def _hot_live(conditions: Conditions) -> float:
    url, sink = _with_hot(conditions)

    async def body() -> float:
        await asyncio.sleep(1)  # the publisher is at work
        began = await _arrive(url)
        return await sink.until(_SUBJECTS) - began

    return await publishing(url, sink, body)


async def _hot_restarted(conditions: Conditions) -> float:
    url, sink = _with_hot(conditions)
    await publishing(url, sink, lambda: asyncio.sleep(1, 0.0))
    await _arrive(url)
    began = perf_counter()
    return await publishing(url, sink, lambda: sink.until(_SUBJECTS)) - began


def _with_hot(conditions: Conditions) -> tuple[str, TrialSink]:
    url = new_database(conditions.server, "hot")
    fill(url, Rows(conditions.sizes.hot, per_key=conditions.sizes.hot, together=True, name="HOT-"))
    return url, TrialSink(_SLOW, counts=_is_not_hot)


async def _arrive(url: str) -> float:
    """Insert a row of each of the other subjects. Returns when."""
    with psycopg.connect(url, autocommit=True) as connection:
        await asyncio.to_thread(arrive, connection, Rows(_SUBJECTS))
        return perf_counter()


def _is_bad(message: Message) -> bool:
    return message.key.startswith("Car/BAD-")


def _is_not_hot(message: Message) -> bool:
    return not message.key.startswith("Car/HOT-")
