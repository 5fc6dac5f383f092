"""Many callers on the lanes of one writer: many entities, one entity, and one at a distance."""

import asyncio
import statistics
from random import Random

import psycopg
from benchmarks.measure import median_ratio
from benchmarks.relay.drain import drain_by_relay
from benchmarks.relay.rows import NullSink, new_database
from benchmarks.sample_event import SUBJECTS
from benchmarks.writer import pgbench
from benchmarks.writer.many_callers import write_at_once

from dsql_outbox import WriterSettings

from .conditions import Conditions
from .distance import at_a_distance

_OFF, _LANES = WriterSettings(), WriterSettings(coalesce=4)
_TO_THE_BROKER = 0.002
_CALLERS, _ON_ONE_ENTITY, _CLIENTS = 256, 64, 8


def lanes(conditions: Conditions) -> list[float]:
    """256 callers on four lanes over pgbench's single events on eight connections."""
    url, seconds = new_database(conditions.server, "lanes"), conditions.sizes.seconds
    random = Random(1)
    ours: list[float] = []
    theirs: list[float] = []

    def subject(caller: int) -> str:
        return f"CAR-{caller}-{random.randrange(SUBJECTS)}"

    with pgbench.script() as (path, options):
        for _ in range(conditions.sizes.rounds):
            theirs.append(pgbench.rate(url, path, options, _CLIENTS, f"-T{round(seconds)}"))
            ours.append(write_at_once(url, _LANES, _CALLERS, subject, seconds).rate)
    return [median_ratio(ours, theirs)]


def one_entity(conditions: Conditions) -> list[float]:
    """64 callers on one entity, with lanes over without."""
    url, sizes = new_database(conditions.server, "one_entity"), conditions.sizes
    on: list[float] = []
    off: list[float] = []
    for _ in range(sizes.rounds):
        for found, settings in ((off, _OFF), (on, _LANES)):
            written = write_at_once(url, settings, _ON_ONE_ENTITY, _hot, sizes.seconds)
            found.append(written.rate)
    return [median_ratio(on, off)]


def far_entity(conditions: Conditions) -> list[float]:
    """Events per second of 256 callers on one entity at a distance; the stored share in %."""
    url, sizes = new_database(conditions.server, "far_entity"), conditions.sizes
    with at_a_distance(url) as far:
        written = [
            write_at_once(far, _LANES, _CALLERS, _hot, sizes.seconds) for _ in range(sizes.rounds)
        ]
    calls = sum(each.receipts + each.failed for each in written)
    return [statistics.median(each.rate for each in written), 100 * _stored(url) / calls]


def relayed(conditions: Conditions) -> list[float]:
    """The relay of these events at 2 ms to the broker, over the writer of them: events per second.

    They have one event type, so one topic, and the relay begins when all are written.
    """
    url, sizes = new_database(conditions.server, "hot_writer"), conditions.sizes
    ratios: list[float] = []
    for _ in range(sizes.rounds):
        written = write_at_once(url, _LANES, _CALLERS, _hot, sizes.seconds)
        relay = asyncio.run(drain_by_relay(url, NullSink(_TO_THE_BROKER)))
        ratios.append(relay.rate / written.rate)
    return [statistics.median(ratios)]


def _stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        ((found,),) = connection.execute("SELECT count(*) FROM outbox.business_events").fetchall()
        return int(found)


def _hot(_caller: int) -> str:
    return "HOT"
