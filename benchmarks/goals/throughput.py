"""How fast the relay is: to a null sink, to NATS, at a distance, and beside held rows."""

import asyncio
import statistics
from collections.abc import Callable, Coroutine
from functools import partial

from benchmarks.measure import median_ratio
from benchmarks.relay.doorbell import held_p99
from benchmarks.relay.drain import Drained, drain_by_loop, drain_by_relay
from benchmarks.relay.nats import arrival, nats_rates, traced_rates
from benchmarks.relay.rows import Rows, fill, new_database

from .conditions import Conditions
from .distance import at_a_distance

_Drain = Callable[[str], Coroutine[object, object, Drained]]

_A_SECOND = 200  # events of the process that writes and relays


def drain(conditions: Conditions) -> list[float]:
    """A drain to a null sink over a bare loop of the same read and delete; CPU per row in us."""
    bare, relay = _in_turn(conditions, drain_by_loop, drain_by_relay)
    ratio = median_ratio([each.rate for each in relay], [each.rate for each in bare])
    return [ratio, statistics.median(each.cpu for each in relay)]


def metrics(conditions: Conditions) -> list[float]:
    """The CPU that metrics add to a row of a drain to a null sink, over that of the row."""
    plain, measured = _in_turn(conditions, partial(drain_by_relay, metrics=False), drain_by_relay)
    return [median_ratio([each.cpu for each in measured], [each.cpu for each in plain]) - 1]


def _in_turn(conditions: Conditions, *drains: _Drain) -> list[list[Drained]]:
    """Measure drains in turn, as often as there are rounds."""
    url, sizes = new_database(conditions.server, "drain"), conditions.sizes
    found: list[list[Drained]] = [[] for _ in drains]
    for _ in range(sizes.rounds):
        for of, drain in zip(found, drains, strict=True):
            fill(url, Rows(sizes.drained))
            of.append(asyncio.run(drain(url)))
    return found


def traced(conditions: Conditions) -> list[float]:
    """The relay to NATS, with metrics: every row traced over none."""
    plain, with_spans = traced_rates(
        conditions.server, conditions.broker, conditions.sizes.rows, conditions.sizes.rounds
    )
    return [median_ratio(with_spans, plain)]


def nats(conditions: Conditions) -> list[float]:
    """The relay to NATS over nats-py's publish_async: subjects interleaved, ten in a row."""
    rates = nats_rates(
        conditions.server, conditions.broker, conditions.sizes.rows, conditions.sizes.rounds
    )
    return [median_ratio(rates[name], rates["nats-py"]) for name in ("apart", "in a row")]


def live(conditions: Conditions) -> list[float]:
    """Two publishers of one constant stream: events per second that arrived, and the p99."""
    sizes = conditions.sizes
    found = arrival(conditions.server, conditions.broker, sizes.a_second, sizes.seconds)
    if found.delivered < 1:
        raise RuntimeError(f"only {found.delivered:.1%} of the events were delivered")
    return [found.rate, found.p99]


def held(conditions: Conditions) -> list[float]:
    """The p99 of others beside held rows over that without them."""
    sizes = conditions.sizes
    free, burdened = held_p99(
        conditions.server, conditions.broker, sizes.held, _A_SECOND, sizes.seconds
    )
    return [burdened / free]


def distance(conditions: Conditions) -> list[float]:
    """Rows per second of a drain, 2 ms from the database each way, and 10 ms per commit."""
    url = new_database(conditions.server, "distance")
    fill(url, Rows(2 * conditions.sizes.rows))
    with at_a_distance(url) as far:
        return [asyncio.run(drain_by_relay(far)).rate]
