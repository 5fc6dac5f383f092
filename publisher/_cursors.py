"""Where the next read of each shard begins: pure, told the time.

Presence is the state: what is in the outbox waits. A cursor only saves reading
the same rows again, is never stored, and always comes back to the head, since
transactions commit out of order. Each shard has a deep cursor, which reads on
by key until it has seen everything, and is read from its head at least every
`head_interval` seconds meanwhile; so a late commit is found soon and a long
stretch of rows that must wait starves nothing behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from ._rows import OutboxRow


class Place(NamedTuple):
    """A place in a shard, before the first row that comes after it."""

    position: int
    event_id: UUID


HEAD: Final = Place(0, UUID(int=0))


class Cursors:
    """The cursors of all shards that one publisher relays; none at first."""

    def __init__(self, *, rows: int, head_interval: float) -> None:
        self._deep: dict[int, Place] = {}
        self._head_read_at: dict[int, float] = {}
        self._head_read_last: set[int] = set()
        self._busy: set[int] = set()
        self._rows = rows
        self._head_interval = head_interval

    def add(self, shards: Iterable[int]) -> None:
        """Read these shards too, from their head."""
        for shard in shards:
            self._deep[shard] = HEAD
            self._head_read_at[shard] = float("-inf")

    def drop(self, shards: Iterable[int]) -> None:
        """Read these shards no more, and forget where they were read."""
        for shard in shards:
            del self._deep[shard], self._head_read_at[shard]
            self._head_read_last.discard(shard)
            self._busy.discard(shard)

    @property
    def behind(self) -> bool:
        """Whether some shard is known to hold rows that were not read yet."""
        return bool(self._busy)

    def starts(self, now: float) -> dict[int, Place]:
        """Where to read each shard from."""
        return {
            shard: HEAD if self._head_is_due(shard, now) else deep
            for shard, deep in self._deep.items()
        }

    def _head_is_due(self, shard: int, now: float) -> bool:
        """Never twice in a row, or rounds longer than the interval would read nothing else."""
        waited = now - self._head_read_at[shard] >= self._head_interval
        return waited and shard not in self._head_read_last

    def limit(self, shard: int) -> int:
        """Rows to read: shards that are behind share a batch, and so do all the others."""
        sharers = len(self._busy) if shard in self._busy else len(self._deep)
        return max(1, self._rows // sharers)

    def advance(
        self,
        starts: Mapping[int, Place],
        limits: Mapping[int, int],
        rows: Sequence[OutboxRow],
        now: float,
    ) -> None:
        """Move on after a read."""
        by_shard: dict[int, list[OutboxRow]] = {shard: [] for shard in starts}
        for row in rows:
            by_shard[row.shard].append(row)
        for shard, found in by_shard.items():
            self._note_head(shard, starts[shard], now)
            if found and _more_to_read(found, limits[shard]):
                last = Place(found[-1].position, found[-1].event_id)
                self._deep[shard] = max(self._deep[shard], last)
                self._busy.add(shard)
            else:
                self._deep[shard] = HEAD
                self._busy.discard(shard)

    def rewind(self, shards: Iterable[int]) -> None:
        """Read these shards from their head next: a row was found out of its turn."""
        for shard in shards:
            self._deep[shard] = HEAD
            self._busy.add(shard)

    def _note_head(self, shard: int, start: Place, now: float) -> None:
        if start == HEAD:
            self._head_read_at[shard] = now
            self._head_read_last.add(shard)
        else:
            self._head_read_last.discard(shard)


def _more_to_read(found: Sequence[OutboxRow], limit: int) -> bool:
    """Whether the read was cut, by rows or by bytes."""
    seen = found[0].seen
    return seen >= limit or len(found) < seen
