"""The goals of a hot entity, where nobody waits for a row lock."""

import asyncio
from functools import partial

from benchmarks.relay.rows import new_database
from benchmarks.writer.storm import POLICIES, storm
from tests.support.dsql.governed import GovernedPostgres

from .conditions import Conditions
from .goal import Goal, Line

_COMMIT, _WRITES = 0.03, 20


def _stored(writers: int, conditions: Conditions) -> list[float]:
    """The share of the events that are stored in %, and the seconds of the longest call."""
    url = new_database(conditions.server, f"hot_{writers}")
    with GovernedPostgres(url, commit_time=_COMMIT) as governed:
        found = asyncio.run(storm(governed.url, POLICIES["ours: the default"], writers, _WRITES))
    return [100 * found.receipts / found.calls, found.longest]


HOT = [
    Line(
        f"storm{writers}",
        [
            Goal(f"{writers} writers of one entity, 30 ms per commit: stored", 100, unit=" %"),
            Goal("the same: longest call", 30, most=True, unit=" s"),
        ],
        partial(_stored, writers),
    )
    for writers in (8, 20)
]
