"""The goals of a fill: a new version of a model beside writers and a live publisher."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

import psycopg
from benchmarks.relay.rows import NullSink, new_database
from benchmarks.sample_event import sample_events

from dsql_outbox.operations import Targets
from dsql_outbox.outbox import Database, Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher import Answer, Publisher
from dsql_outbox.writer import AsyncWriter, Writer

from .conditions import Conditions
from .goal import Goal, Line

_CHUNK, _A_SECOND, _AT_ONCE, _MODELS = 4_000, 500, 10, 4

_TABLE = "CREATE TABLE public.model (key text PRIMARY KEY, number int, last bigint)"

_COUNT = """INSERT INTO public.model AS m VALUES (%s, 1, %s) ON CONFLICT (key) DO UPDATE SET
  number = m.number + 1, last = CASE WHEN m.last < excluded.last THEN excluded.last ELSE -1 END"""
"""`last` becomes -1 when a version does not rise."""

_WRONG = """SELECT count(*) FROM
  (SELECT 'Car/' || subject_id AS key, count(*) AS number, max(subject_version) AS last
   FROM outbox.business_events GROUP BY 1) AS truth
FULL JOIN public.model AS m USING (key, number, last)
WHERE truth.key IS NULL OR m.key IS NULL"""


class Counting(NullSink):
    """A sink that counts what it stores."""

    stored = 0

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await super().publish(messages, answer)
        self.stored += len(messages)


def fill(conditions: Conditions) -> list[float]:
    """Events filled per second, those relayed meanwhile over those written, and wrong subjects."""
    url = new_database(conditions.server, "filled")
    number = 10 * conditions.sizes.rows
    with Writer(Database(url)) as writer:
        for first in range(0, number, _CHUNK):
            writer.write_many(sample_events(first, min(_CHUNK, number - first)))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM outbox.outbox")
        connection.execute("VACUUM ANALYZE")
        connection.execute(_TABLE)
        rate, relayed = asyncio.run(_filled(url, number))
        row = connection.execute(_WRONG).fetchone()
    return [rate, relayed, float(row[0]) if row else -1.0]


async def _filled(url: str, number: int) -> tuple[float, float]:
    database, sink, written, is_over = Database(url), Counting(), 0, asyncio.Event()

    async def write() -> None:
        nonlocal written
        async with AsyncWriter(database) as writer:
            began = perf_counter()
            while not is_over.is_set():
                await writer.write_many(sample_events(number + written, _AT_ONCE))
                written += _AT_ONCE
                await asyncio.sleep(max(0.0, written / _A_SECOND - (perf_counter() - began)))

    writing = asyncio.create_task(write())
    live = Publisher(database, sink)
    async with live, Targets(database) as targets:
        began = perf_counter()
        await targets.add("model", kind="model", from_start=True)
        rate = number / (perf_counter() - began)
        relayed = sink.stored / max(1, written)
        is_over.set()
        await writing
        # Several, since each message costs the function a round trip of its own.
        models = [Publisher(database, apply=_apply, target="model") for _ in range(_MODELS)]
        await asyncio.gather(*(each.run(until_empty=True) for each in models))
    return rate, relayed


async def _apply(connection: AsyncConnection, message: Message) -> None:
    await connection.execute(_COUNT, (message.key, int(message.headers["sequence"])))


FILLS = [
    Line(
        "fill",
        [
            Goal("fill beside 500 writes a second: events a second", 5_000),
            Goal("the same: relayed by a live publisher / written meanwhile", 0.9),
            Goal("the same: subjects whose model differs from the truth", 0, most=True),
        ],
        fill,
    ),
]
