"""The writer beside bare drivers, in the rounds of `benchmarks.peers`."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measure import median_ratio
from benchmarks.peers.contestants import (
    ASYNCPG,
    CONTESTANTS,
    OWN,
    OWN_SYNC,
    PSYCOPG,
    PSYCOPG_SYNC,
)
from benchmarks.peers.field import Entry, Field
from benchmarks.peers.peer_process import Measured

from .conditions import Conditions
from .goal import NotMeasuredError

_BATCHES, _LARGE, _SINGLES = 10_000, 10_000, 2_000
_BARE = Entry(ASYNCPG, "batch")


def write_many(conditions: Conditions) -> list[float]:
    """`write_many` of 100 over the bare asyncpg statement."""
    ours = Entry(OWN, "batch")
    return [_ratio(_measured(conditions, {ours: _BATCHES, _BARE: _BATCHES}), ours, _BARE)]


def large(conditions: Conditions) -> list[float]:
    """`write_many` of 10,000 over the bare asyncpg statement."""
    ours = Entry(OWN, "large")
    return [_ratio(_measured(conditions, {ours: _LARGE, _BARE: _BATCHES}), ours, _BARE)]


def client_cpu(conditions: Conditions) -> list[float]:
    """CPU of the client per single write, over bare psycopg: sync, and async, in us."""
    pairs = ((OWN_SYNC, PSYCOPG_SYNC), (OWN, PSYCOPG))
    entries = [(Entry(ours, "single"), Entry(bare, "single")) for ours, bare in pairs]
    found = _measured(conditions, {entry: _SINGLES for pair in entries for entry in pair})
    return [_more_cpu(found[ours], found[bare]) for ours, bare in entries]


Rounds = Mapping[Entry, Sequence[Measured]]


def _measured(conditions: Conditions, work: Mapping[Entry, int]) -> Rounds:
    with _field(conditions) as field:
        return _rounds(field, work, conditions.sizes.rounds)


def _field(conditions: Conditions) -> Field:
    return Field(conditions.server, CONTESTANTS)


def _rounds(field: Field, work: Mapping[Entry, int], rounds: int) -> Rounds:
    found = field.rounds(work, rounds)
    for entry, why in field.failed.items():
        text = f"{entry.contestant}, {entry.line}: {why}"
        raise NotMeasuredError(f"{text}; `make bench-peers` installs the peers")
    return found


def _ratio(found: Rounds, ours: Entry, theirs: Entry) -> float:
    return median_ratio([each.rate for each in found[ours]], [each.rate for each in found[theirs]])


def _more_cpu(ours: Sequence[Measured], bare: Sequence[Measured]) -> float:
    pairs = zip(ours, bare, strict=True)
    return statistics.median((mine.cpu or 0) - (theirs.cpu or 0) for mine, theirs in pairs)
