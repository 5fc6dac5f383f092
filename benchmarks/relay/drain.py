"""The cost of the relay itself: a drain to a null sink, beside a loop of the same statements."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from time import perf_counter, process_time
from typing import NamedTuple
from uuid import UUID

import psycopg
from benchmarks.telemetry import metered
from benchmarks.writer.statement_parameters import SHARDS

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.testing import EmbeddedPostgres

from .rows import BATCH, NullSink, Rows, fill, new_database

SETTINGS = PublisherSettings(batch_rows=BATCH)
ON_OUTBOX = re.compile(r'^(?!.*outbox_failures).*"outbox"\.outbox\b', re.DOTALL)
"""Matches statements on table outbox, without those on failures, which run only seldom."""

_HEAD = (0, str(UUID(int=0)))


_Drain = Callable[[str], Coroutine[object, object, None]]


class Drained(NamedTuple):
    """The cost of emptying an outbox: rows per second, and CPU of this process per row in us."""

    rate: float
    cpu: float


def drained(
    server: EmbeddedPostgres, rows: int, rounds: int
) -> tuple[list[Drained], list[Drained]]:
    """Drain by the bare loop and by the relay in turn, `rounds` times each."""
    return _in_turn(server, rows, rounds, _bare, drain_by_relay)


def metered_drains(
    server: EmbeddedPostgres, rows: int, rounds: int
) -> tuple[list[Drained], list[Drained]]:
    """Drain by the relay without metrics and with them in turn, `rounds` times each."""
    return _in_turn(server, rows, rounds, drain_without_metrics, drain_by_relay)


def _in_turn(
    server: EmbeddedPostgres, rows: int, rounds: int, one: _Drain, other: _Drain
) -> tuple[list[Drained], list[Drained]]:
    found: tuple[list[Drained], list[Drained]] = [], []
    url = new_database(server, "drain")
    for _ in range(rounds):
        for drains, run in zip(found, (one, other), strict=True):
            fill(url, Rows(rows))
            began, busy = perf_counter(), process_time()
            asyncio.run(run(url))
            took, worked = perf_counter() - began, process_time() - busy
            drains.append(Drained(rows / took, worked / rows * 1e6))
    return found


async def drain_by_relay(url: str, delay: float = 0.0) -> None:
    """Relay all rows, with metrics, to a null sink that answers after `delay` seconds."""
    with metered() as hook:
        sink = NullSink(delay)
        await Publisher(Database(url), sink, SETTINGS, hooks=[hook]).run(until_empty=True)


async def drain_without_metrics(url: str) -> None:
    """Relay all rows to a null sink, without a hook of the caller."""
    await Publisher(Database(url), NullSink(), SETTINGS).run(until_empty=True)


async def _bare(url: str) -> None:
    """Read by key and delete these rows, on one connection, until the outbox is empty."""
    read, delete = statement("outbox_read", "outbox"), statement("outbox_delete", "outbox")
    places = dict.fromkeys(range(SHARDS), _HEAD)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            found = await (await connection.execute(read, _bounds(places))).fetchall()
            rows = [row for row in found if row[-1] is None]  # the others are the ends of ranges
            if not rows:
                return
            places |= {row[1]: (row[2], row[3]) for row in found if row[-1] is not None}
            await connection.execute(
                delete,
                {
                    "shards": array_literal(row[1] for row in rows),
                    "positions": array_literal(row[2] for row in rows),
                    "event_ids": array_literal(row[3] for row in rows),
                },
            )


def _bounds(places: Mapping[int, tuple[int, str]]) -> dict[str, str]:
    """The parameters of a read that passes nothing over."""
    each = BATCH // SHARDS
    return {
        "numbers": plain_array(places),
        "shards": plain_array(places),
        "positions": plain_array(position for position, _ in places.values()),
        "event_ids": plain_array(event_id for _, event_id in places.values()),
        "rows": plain_array(each for _ in places),
        "sizes": plain_array(SETTINGS.batch_bytes // SHARDS for _ in places),
        "visits": plain_array(each for _ in places),
        "passed": "{}",
        "topics": "{}",
    }
