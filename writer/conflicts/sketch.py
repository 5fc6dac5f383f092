"""Counts of the entities that conflict most, in bounded memory. No I/O.

It is the Space-Saving sketch: when it is full, a new entity takes the place of the one
with the fewest conflicts and inherits its rank. So an entity that conflicts often stays,
and the counts of a kept entity begin when it was admitted.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from dsql_outbox.outbox.contention import EntityConflicts, WriterConflicts

SIZE: Final = 64
"""The number of entities that a sketch counts."""

STORED: Final = 32
"""The number of entities in a report, those with the most conflicts."""

EntityKey = tuple[str, str]
"""The type and the id of an entity."""


class Conflict(msgspec.Struct, frozen=True):
    """A transaction that ended in a conflict.

    `touched` maps each entity to whether one of its events touches other entities too.
    If there were too many, `is_sampled` is set and `touched` holds some of them.
    `exhausted` is the number of events that were given up, and `given_up` their entities.
    `lost_seconds` is the time of the attempt and of the wait after it.
    """

    touched: Mapping[EntityKey, bool]
    is_sampled: bool
    in_transact: bool
    exhausted: int
    given_up: Collection[EntityKey]
    lost_seconds: float


class Sketch:
    """Counts conflicts. Times are seconds of one clock, which the caller reads."""

    def __init__(self) -> None:
        self._total = WriterConflicts()
        self._entities: dict[EntityKey, EntityConflicts] = {}
        self._ranks: dict[EntityKey, int] = {}
        self._seen: dict[EntityKey, float] = {}

    def add(self, conflict: Conflict, now: float, *, coalesced: bool) -> None:
        """Count a conflict."""
        total = self._total
        total.transactions += 1
        total.exhausted += conflict.exhausted
        total.lost_seconds += conflict.lost_seconds
        total.is_partial = total.is_partial or conflict.is_sampled
        ranks = {key: self._ranks.get(key, 0) for key in conflict.touched}
        highest = max(ranks.values(), default=0)
        for key, rank in ranks.items():
            counts = self._admit(key)
            counts.behind += rank < highest
            counts.coalesced += coalesced
            _count(counts, key, conflict)
            self._seen[key] = now

    def report(self, now: float) -> WriterConflicts:
        """Return the counts so far, with the entities that conflict most."""
        by_rank = sorted(self._ranks, key=self._ranks.__getitem__, reverse=True)
        return msgspec.structs.replace(
            self._total,
            is_partial=self._total.is_partial or len(by_rank) > STORED,
            entities=[self._counts_of(key, now) for key in by_rank[:STORED]],
        )

    def _counts_of(self, key: EntityKey, now: float) -> EntityConflicts:
        seen_seconds = round(now - self._seen[key], 3)
        return msgspec.structs.replace(self._entities[key], seen_seconds=seen_seconds)

    def _admit(self, key: EntityKey) -> EntityConflicts:
        """Return the counts of an entity, after its rank has risen by one."""
        if key not in self._ranks:
            self._ranks[key] = self._make_room()
            self._entities[key] = EntityConflicts(entity_type=key[0], entity_id=key[1])
        self._ranks[key] += 1
        return self._entities[key]

    def _make_room(self) -> int:
        """Return the rank that a new entity begins with: that of the one it replaces, or 0."""
        if len(self._ranks) < SIZE:
            return 0
        last = min(self._ranks, key=self._ranks.__getitem__)
        self._total.is_partial = True
        del self._entities[last], self._seen[last]
        return self._ranks.pop(last)


def _count(counts: EntityConflicts, key: EntityKey, conflict: Conflict) -> None:
    counts.conflicts += 1
    counts.alone += len(conflict.touched) == 1
    counts.joint += conflict.touched[key]
    counts.transact += conflict.in_transact
    counts.exhausted += key in conflict.given_up
    counts.lost_seconds += conflict.lost_seconds
