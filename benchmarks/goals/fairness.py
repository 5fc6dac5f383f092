"""Healthy rows beside failing ones, and few rows beside the many of a hot subject."""

import asyncio
from time import perf_counter

import psycopg
from benchmarks.measure import median_ratio
from benchmarks.relay.rows import Rows, arrive, fill, new_database

from dsql_outbox.outbox import Message

from .conditions import Conditions
from .trial import TrialSink, publishing

_SLOW = 0.005  # seconds until the sink answers
_SUBJECTS = 500
_PER_SUBJECT = 20

_INTERLEAVE = """
UPDATE outbox.outbox SET position = position - (SELECT max(position) FROM outbox.outbox)
  + (SELECT max(position) FROM outbox.outbox WHERE subject_id NOT LIKE 'BAD-%')
WHERE subject_id LIKE 'BAD-%'
"""


def half(conditions: Conditions) -> list[float]:
    """Healthy rows beside as many failing ones, over none failing: with a slow and a fast sink."""
    found: list[float] = []
    for delay in (_SLOW, 0.0):
        burdened: list[float] = []
        free: list[float] = []
        for _ in range(conditions.sizes.rounds):
            free.append(asyncio.run(_rate(conditions, delay, failing=False)))
            burdened.append(asyncio.run(_rate(conditions, delay, failing=True)))
        found.append(median_ratio(burdened, free))
    return found


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


async def _rate(conditions: Conditions, delay: float, *, failing: bool) -> float:
    """Healthy rows per second, from the first on.

    They have 20 rows per subject; between two of them is a failing row of its own subject.
    """
    url, rows = new_database(conditions.server, "half"), conditions.sizes.rows
    fill(url, Rows(rows, per_key=_PER_SUBJECT))
    if failing:
        fill(url, Rows(rows, name="BAD-"))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_INTERLEAVE)
    sink = TrialSink(delay, fails=_is_bad)
    last = await publishing(url, sink, lambda: sink.until(rows))
    return (len(sink.delivered) - 1) / (last - sink.delivered[0][0])


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
