"""The writer beside bare drivers and faststream-outbox, in the rounds of `benchmarks.peers`."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.measure import median_ratio
from benchmarks.peers.contestants import (
    ASYNCPG,
    CONTESTANTS,
    FASTSTREAM,
    OWN,
    OWN_SYNC,
    PSYCOPG,
    PSYCOPG_SYNC,
)
from benchmarks.peers.field import Entry, Field
from benchmarks.peers.peer_process import Measured, PeerFailedError
from benchmarks.relay.rows import new_database
from benchmarks.writer.write_command import load

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


def command(conditions: Conditions) -> list[float]:
    """``write`` over the bare statement; its peak memory in MiB, and the growth in %.

    The memory is that of the worst round.
    """
    rates: list[float] = []
    bare: list[float] = []
    peaks: list[float] = []
    growths: list[float] = []
    with _field(conditions) as field:
        for _ in range(conditions.sizes.loads):
            (theirs,) = _rounds(field, {_BARE: _BATCHES}, 1)[_BARE]
            url = new_database(conditions.server, "load")
            seconds, memory, code, receipts = load(url, conditions.sizes.load)
            if (code, receipts) != (0, conditions.sizes.load):
                raise RuntimeError(f"write ended with {code} after {receipts:,} receipts")
            bare.append(theirs.rate)
            rates.append(receipts / seconds)
            peaks.append(memory.peak)
            growths.append(100 * memory.growth)
    return [median_ratio(rates, bare), max(peaks), max(growths)]


def client_cpu(conditions: Conditions) -> list[float]:
    """CPU of the client per single write, over bare psycopg: sync, and async, in us."""
    pairs = ((OWN_SYNC, PSYCOPG_SYNC), (OWN, PSYCOPG))
    entries = [(Entry(ours, "single"), Entry(bare, "single")) for ours, bare in pairs]
    found = _measured(conditions, {entry: _SINGLES for pair in entries for entry in pair})
    return [_more_cpu(found[ours], found[bare]) for ours, bare in entries]


def single(conditions: Conditions) -> list[float]:
    """A single event over one of faststream-outbox."""
    ours, theirs = Entry(OWN, "single"), Entry(FASTSTREAM, "single")
    return [_ratio(_measured(conditions, {ours: _SINGLES, theirs: _SINGLES}), ours, theirs)]


Rounds = Mapping[Entry, Sequence[Measured]]


def _measured(conditions: Conditions, work: Mapping[Entry, int]) -> Rounds:
    with _field(conditions) as field:
        return _rounds(field, work, conditions.sizes.rounds)


def _field(conditions: Conditions) -> Field:
    return Field(conditions.server, CONTESTANTS)


def _rounds(field: Field, work: Mapping[Entry, int], rounds: int) -> Rounds:
    try:
        return field.rounds(work, rounds)
    except PeerFailedError as error:
        raise NotMeasuredError(f"{error}; `make bench-peers` installs the peers") from None


def _ratio(found: Rounds, ours: Entry, theirs: Entry) -> float:
    return median_ratio([each.rate for each in found[ours]], [each.rate for each in found[theirs]])


def _more_cpu(ours: Sequence[Measured], bare: Sequence[Measured]) -> float:
    pairs = zip(ours, bare, strict=True)
    return statistics.median((mine.cpu or 0) - (theirs.cpu or 0) for mine, theirs in pairs)
