"""The probe of a hot tail: commits at the end of one range of keys, beside scattered ones.

A database that divides a table by its keys takes rising keys in one place. The outbox has such
an end per shard. It shows in the slowest commits alone, and only under load.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from itertools import chain
from statistics import quantiles
from threading import Event
from time import monotonic, time_ns
from typing import Final, NamedTuple

import psycopg

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.failure import CONFLICTS, kind_of

from .examined_database import PATIENCE, ExaminedDatabase, run
from .finding import Finding

TAIL: Final = "hot tail"

_SESSIONS: Final = 16
_ROWS: Final = 20
"""Rows of a transaction. With commits of 35 ms the sessions insert 9,000 rows per second."""
_PHASES: Final = ("rising", "scattered", "rising", "scattered")
"""In turns, because a new table gets faster while it grows."""

_FEWEST: Final = 100
"""Commits of each kind below which a 99th percentile says nothing."""
_SLOW: Final = 0.2
"""Seconds of a commit that a caller notices."""
_TIMES: Final = 3
"""How much slower rising keys may be, by chance."""


class Commits(NamedTuple):
    """Seconds of the transactions on one kind of keys, and how many ended in a conflict."""

    seconds: Sequence[float]
    conflicts: int
    rate: float
    """Rows per second."""

    @property
    def p50(self) -> float:
        """The median."""
        return self._percentile(50)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return self._percentile(99)

    def _percentile(self, percent: int) -> float:
        return quantiles(self.seconds, n=100, method="inclusive")[percent - 1]

    def numbers(self) -> dict[str, float]:
        """The values of a finding."""
        return {
            "commits": len(self.seconds),
            "conflicts": self.conflicts,
            "rows_per_second": self.rate,
            "p50": self.p50,
            "p99": self.p99,
            "max": max(self.seconds),
        }

    def __str__(self) -> str:
        """The times in milliseconds, and the rate."""
        p50, p99, longest = (f"{t * 1000:.1f}" for t in (self.p50, self.p99, max(self.seconds)))
        return f"p50 {p50}, p99 {p99}, max {longest} ms at {self.rate:,.0f} rows/s"


def hot_tail(visit: ExaminedDatabase, seconds: float) -> Iterator[Finding]:
    """The times of commits in `seconds` of load on rising and on scattered keys."""
    found: dict[str, list[Commits]] = {kind: [] for kind in _PHASES}
    with ExitStack() as stack:
        sessions = [stack.enter_context(closing(visit.connect())) for _ in range(_SESSIONS)]
        for session in sessions:
            run(session, visit.schema, "doctor_count", position=0)  # any OC001 comes now
        for kind in _PHASES:
            found[kind].append(_load(visit, sessions, kind, seconds / len(_PHASES)))
    yield judge_tail({kind: _joined(phases) for kind, phases in found.items()})


def judge_tail(commits: Mapping[str, Commits]) -> Finding:
    """Judge commits on ``rising`` and on ``scattered`` keys."""
    rising, scattered = commits["rising"], commits["scattered"]
    if (fewest := min(len(rising.seconds), len(scattered.seconds))) < _FEWEST:
        text = f"{fewest} commits are too few to tell"
        return Finding(TAIL, "unknown", text, "probe for longer", values={"commits": fewest})
    values = {
        f"{kind}_{name}": value
        for kind, found in commits.items()
        for name, value in found.numbers().items()
    }
    text = f"rising keys: {rising}; scattered keys: {scattered}"
    if rising.p99 <= max(_SLOW, _TIMES * scattered.p99):
        return Finding(TAIL, "ok", text, values=values)
    remedy = "one range of keys does not take this rate: let each shard take less of it by"
    remedy += " `dsql-outbox schema apply --shards N`"
    return Finding(TAIL, "warn", text, remedy, values=values)


def _joined(phases: Sequence[Commits]) -> Commits:
    seconds = [*chain.from_iterable(phase.seconds for phase in phases)]
    conflicts = sum(phase.conflicts for phase in phases)
    return Commits(seconds, conflicts, sum(phase.rate for phase in phases) / len(phases))


def _load(
    visit: ExaminedDatabase, sessions: Sequence[Connection], kind: str, seconds: float
) -> Commits:
    """Insert with all sessions at once for some seconds."""
    ended = Event()
    taken: list[float] = []
    conflicts: list[psycopg.Error] = []

    def insert(session: Connection) -> None:
        while not ended.is_set():
            start = monotonic()
            try:
                _insert(visit, session, kind)
                taken.append(monotonic() - start)
            except psycopg.Error as error:
                if kind_of(error) not in CONFLICTS:
                    raise
                conflicts.append(error)

    start = monotonic()
    with ThreadPoolExecutor(len(sessions)) as threads:
        try:
            inserting = [threads.submit(insert, session) for session in sessions]
            wait(inserting, seconds, return_when=FIRST_EXCEPTION)
        finally:
            ended.set()
    for each in inserting:
        each.result()
    return Commits(taken, len(conflicts), len(taken) * _ROWS / (monotonic() - start))


def _insert(visit: ExaminedDatabase, session: Connection, kind: str) -> None:
    session.deadline = monotonic() + PATIENCE
    # Microseconds, as the writer's positions are, so that the keys of all sessions rise together.
    position = time_ns() // 1000
    run(session, visit.schema, f"doctor_tail_{kind}", position=position, rows=_ROWS)
