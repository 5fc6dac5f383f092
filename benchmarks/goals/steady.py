"""Events that one process writes and another one relays: lone ones, and steady traffic."""

from benchmarks.peers.contestants import CONTESTANTS, OWN, OWN_RUNG
from benchmarks.peers.way import HUNDRED, LONE, THOUSAND, Traffic, Way, Ways

from .conditions import FULL, Conditions
from .goal import NotMeasuredError

_SHARE = 0.3  # of the traffic's seconds; `--full` takes all


def lone(conditions: Conditions) -> list[float]:
    """Milliseconds to the sink: p50 and the longest by polling, p50 and p99 with the doorbell."""
    polling, rung = (way.relayed for way in _ways(conditions, LONE, OWN, OWN_RUNG))
    return [polling.p50, polling.max, rung.p50, rung.p99]


def steady(conditions: Conditions) -> list[float]:
    """At 100 and at 1,000 a second: p50 and p99 in ms, CPU of the process and of its sessions."""
    ways = [*_ways(conditions, HUNDRED, OWN), *_ways(conditions, THOUSAND, OWN)]
    return [value for way in ways for value in (way.relayed.p50, way.relayed.p99, *way.cost)]


def _ways(conditions: Conditions, traffic: Traffic, *names: str) -> list[Way]:
    share = 1.0 if conditions.sizes.seconds == FULL.seconds else _SHARE
    with Ways(conditions.server, [each for each in CONTESTANTS if each.name in names]) as ways:
        if ways.missing:
            raise NotMeasuredError("; ".join(ways.missing.values()))
        return list(ways.measure(traffic, share))
