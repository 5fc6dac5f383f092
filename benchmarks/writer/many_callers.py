"""Many callers of one writer, each writing one event after the other."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import NamedTuple

import psycopg
from benchmarks.sample_event import event

from dsql_outbox import AsyncWriter, Database, OutboxError, WriterSettings


class Written(NamedTuple):
    """The result of the callers: receipts, failed calls, and receipts per second."""

    receipts: int
    failed: int
    rate: float


def write_at_once(
    url: str,
    settings: WriterSettings,
    callers: int,
    subject: Callable[[int], str],
    seconds: float,
) -> Written:
    """Write for some seconds by tasks that share a writer; `subject` gets the caller's number.

    Calls that fail are counted, and not logged.
    """
    logging.disable()
    try:
        return asyncio.run(_round(url, settings, callers, subject, seconds))
    finally:
        logging.disable(logging.NOTSET)


async def _round(
    url: str,
    settings: WriterSettings,
    callers: int,
    subject: Callable[[int], str],
    seconds: float,
) -> Written:
    database = Database(url, isolation="repeatable read")
    async with AsyncWriter(database, settings) as writer:
        began = monotonic()
        calls = (_caller(writer, partial(subject, n), began + seconds) for n in range(callers))
        found = await asyncio.gather(*calls)
        took = monotonic() - began
    receipts = sum(written for written, _ in found)
    return Written(receipts, sum(failed for _, failed in found), receipts / took)


async def _caller(writer: AsyncWriter, subject: Callable[[], str], until: float) -> tuple[int, int]:
    """Returns the number of receipts, and of calls that failed."""
    written = failed = 0
    while monotonic() < until:
        try:
            await writer.write(event(subject(), written + failed))
        except (psycopg.Error, OutboxError):
            failed += 1
        else:
            written += 1
    return written, failed
