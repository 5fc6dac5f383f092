"""Many writers of one entity at once: all events are stored, and how long each write takes."""

import asyncio
from statistics import median
from time import monotonic
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.outbox import Database, Entity, Event, OutboxError, Receipt
from dsql_outbox.writer import AsyncWriter, WriterSettings

NAME: Final = "hot storm"
WRITERS: Final = 20
EACH: Final = 5
_ALONE: Final = 10
"""Writes before the storm, one after the other: the time of a write without a conflict."""


def hot_storm(database: Database) -> Finding:
    """Whether all events of concurrent writers of one entity are stored, with the defaults."""
    return asyncio.run(_storm(database))


async def _storm(database: Database) -> Finding:
    settings = WriterSettings(max_connections=WRITERS, backlog_check=None)
    async with AsyncWriter(database, settings) as writer:
        alone = [await _write(writer) for _ in range(_ALONE)]
        start = monotonic()
        writers = await asyncio.gather(*(_writer(writer) for _ in range(WRITERS)))
        seconds = monotonic() - start
    return judge_storm(alone, [each for found in writers for each in found], seconds)


Written = tuple[float, Receipt | Exception]
"""The seconds of a write, and its end."""


async def _writer(writer: AsyncWriter) -> list[Written]:
    return [await _write(writer) for _ in range(EACH)]


async def _write(writer: AsyncWriter) -> Written:
    event = Event.new("CarDriven", [Entity("Car", "CAR-HOT", {})])
    start = monotonic()
    try:
        end: Receipt | Exception = await writer.write(event)
    except (psycopg.Error, OutboxError) as error:
        end = error
    return monotonic() - start, end


def judge_storm(alone: list[Written], storm: list[Written], seconds: float) -> Finding:
    """Judge by the ends of the writes before the storm and in it."""
    receipts = [end for _, end in storm if isinstance(end, Receipt)]
    took = sorted(each for each, _ in storm)
    values = {
        "stored": len(receipts),
        "written": len(storm),
        "conflicts": sum(receipt.conflicts for receipt in receipts),
        "seconds": seconds,
        "alone_seconds": median(each for each, _ in alone),
        "p50_seconds": median(took),
        "p95_seconds": took[len(took) * 95 // 100],
        "longest_seconds": took[-1],
    }
    text = f"{len(receipts)} of {len(storm)} events of one entity stored by {WRITERS} writers, "
    text += f"{values['conflicts']} conflicts, longest write {took[-1]:.1f} s"
    if len(receipts) == len(storm):
        return Finding(NAME, "ok", text, values=values)
    kinds = sorted({type(end).__name__ for _, end in storm if not isinstance(end, Receipt)})
    text = f"{text}; {', '.join(kinds)}"
    remedy = "raise WriterSettings(timeout=..), or write such an entity from one process: coalesce"
    return Finding(NAME, "fail", text, remedy, values=values)
