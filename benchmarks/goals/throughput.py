"""How fast the relay is to a null sink."""

import asyncio
import statistics

from benchmarks.measure import median_ratio
from benchmarks.relay.drain import Drained, drain_by_loop, drain_by_relay
from benchmarks.relay.rows import Rows, fill, new_database

from .conditions import Conditions


def drain(conditions: Conditions) -> list[float]:
    """A drain to a null sink over a bare loop of the same read and delete; CPU per row in us."""
    url, sizes = new_database(conditions.server, "drain"), conditions.sizes
    bare, relay = list[Drained](), list[Drained]()
    for _ in range(sizes.rounds):
        for of, drain in ((bare, drain_by_loop), (relay, drain_by_relay)):
            fill(url, Rows(sizes.drained))
            of.append(asyncio.run(drain(url)))
    ratio = median_ratio([each.rate for each in relay], [each.rate for each in bare])
    return [ratio, statistics.median(each.cpu for each in relay)]
