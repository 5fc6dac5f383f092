"""Lone events, written by one process and relayed by another that is idle before each."""

from benchmarks.peers.contestants import CONTESTANTS, OWN, OWN_RUNG, select_lines
from benchmarks.peers.way import Ways

from .conditions import FULL, Conditions
from .goal import NotMeasuredError

_SHARE = 0.3  # of the line's seconds; `--full` takes all


def lone(conditions: Conditions) -> list[float]:
    """Milliseconds to the sink: p50 and the longest by polling, p50 and p99 with the doorbell."""
    (line,) = select_lines("lone")
    ours = [each for each in CONTESTANTS if each.name in {OWN, OWN_RUNG}]
    with Ways(conditions.server, ours) as ways:
        if ways.missing:
            raise NotMeasuredError("; ".join(ways.missing.values()))
        share = 1.0 if conditions.sizes.seconds == FULL.seconds else _SHARE
        found = {way.contestant: way.relayed for way in ways.measure(line, share)}
    polling, rung = found[OWN], found[OWN_RUNG]
    return [polling.p50, polling.max, rung.p50, rung.p99]
