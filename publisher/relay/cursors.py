"""Where the next read of each shard begins. The module does no I/O.

Presence is the state: what is in the outbox waits. A cursor only saves reading
the same rows again, is never stored, and always comes back to the head, since
transactions commit out of order. A *sweep* of a shard reads on by key from its
head until it has seen everything. Then the cursor stays a little before the
last row that was seen, so what commits next is found at once, by a read that
passes over nothing that was deleted long ago.

What was committed still later than that is found from the head: by the next
sweep, and by a read of the head in the midst of a long one. Both come every
`head_interval` seconds, or seldomer if they take long, so that they take a
twentieth of the time at most. So late commits are found, a long stretch of
rows that must wait starves nothing behind it, and neither do deleted rows that
an old snapshot keeps alive.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Final, Literal, NamedTuple
from uuid import UUID

from .outbox_rows import OutboxRow


class RowPlace(NamedTuple):
    """A place in a shard, before the first row that comes after it; `position` in microseconds."""

    position: int
    event_id: UUID


HEAD: Final = RowPlace(-(1 << 63), UUID(int=0))
"""The place before every possible row, also before invalid positions."""

_OVERLAP: Final = 1_000_000
"""Microseconds to go back before the last row seen; most transactions commit within them."""

_STUCK_ROWS: Final = 100
"""The most rows read of a shard whose last rows all wait, to leave the batch to other shards."""

_RECENT: Final = 5.0
"""Seconds before now on this machine's clock.

New rows of a shard that was never read are expected from there on.
"""

_SHARE: Final = 20
_LONGEST: Final = 60.0
"""The longest time in seconds until the next sweep for late commits begins."""


@dataclass(slots=True)
class _Cursor:
    """Where the reads of one shard go on; `began` is the start of the running sweep, if any.

    Up to three places take turns, so that none hides what is behind it: `deep`, where the
    sweep is; `again`, from where up to `deep` rows are read once more, since they
    could not be sent; and `tail`, where new rows come, while the sweep is stuck in
    rows that all wait. `turn` is the one that was read last.
    """

    tail: RowPlace
    deep: RowPlace = HEAD
    again: RowPlace | None = None
    turn: Literal["deep", "again", "tail"] = "deep"
    last: int = 0
    began: float | None = None
    head_read_at: float = float("-inf")
    head_read_last: bool = False
    head_cost: float = 0.0
    sweep_cost: float = 0.0
    is_stuck: bool = False

    @property
    def is_behind(self) -> bool:
        """Whether the shard is known to hold rows to read."""
        return self.began is not None or self.again is not None


class Cursors:
    """The cursors of the shards that one publisher relays; there are none at first."""

    def __init__(self, *, rows: int, head_interval: float) -> None:
        self._cursors: dict[int, _Cursor] = {}
        self._rows = rows
        self._head_interval = head_interval

    def add(self, shards: Iterable[int]) -> None:
        """Start to read these shards, from their head."""
        recent = RowPlace(int((time() - _RECENT) * 1_000_000), HEAD.event_id)
        self._cursors |= {shard: _Cursor(recent) for shard in shards}

    def drop(self, shards: Iterable[int]) -> None:
        """Stop reading these shards and forget their cursors."""
        for shard in shards:
            del self._cursors[shard]

    @property
    def behind(self) -> bool:
        """Whether some shard is known to hold rows to read."""
        return any(cursor.is_behind for cursor in self._cursors.values())

    @property
    def sweeping(self) -> bool:
        """Whether some shard holds rows that no read of its sweep has seen."""
        return any(cursor.began is not None for cursor in self._cursors.values())

    @property
    def again(self) -> dict[int, int]:
        """The positions from which shards will be read once more."""
        return {s: c.again.position for s, c in self._cursors.items() if c.again is not None}

    def starts(self, now: float) -> dict[int, RowPlace]:
        """The place from which to read each shard now."""
        return {
            shard: HEAD if self._head_is_due(cursor, now) else _next(cursor)
            for shard, cursor in self._cursors.items()
        }

    def limit(self, shard: int) -> int:
        """The number of rows to read of a shard.

        Shards that are behind share one batch; each other shard gets a part by the
        number of all shards.
        """
        sharers, cursor = len(self._cursors), self._cursors[shard]
        if cursor.is_behind:
            sharers = sum(each.is_behind for each in self._cursors.values())
        rows = max(1, self._rows // sharers)
        return min(rows, _STUCK_ROWS) if cursor.is_stuck else rows

    def advance(
        self,
        starts: Mapping[int, RowPlace],
        limits: Mapping[int, int],
        rows: Sequence[OutboxRow],
        now: float,
        took: float = 0.0,
    ) -> None:
        """Move the cursors after a read that ended at `now` and took `took` seconds."""
        by_shard: dict[int, list[OutboxRow]] = {shard: [] for shard in starts}
        for row in rows:
            by_shard[row.shard].append(row)
        for shard, found in by_shard.items():
            cursor, start = self._cursors[shard], starts[shard]
            _note_head(cursor, start, now, took)
            cursor.turn = _turn_of(cursor, start)
            if not found or not _more_to_read(found, limits[shard]):
                _saw_the_rest(cursor, start, found, now)
            else:
                _saw_up_to(
                    cursor, start, RowPlace(found[-1].position, found[-1].event_id), now - took
                )

    def chosen(self, read: Collection[int], sent: Collection[int]) -> None:
        """Note which shards had rows in the last read, and which of them had rows to send."""
        for shard in read:
            cursor = self._cursors[shard]
            if cursor.turn == "deep":
                cursor.is_stuck = shard not in sent

    def back_to(self, places: Mapping[int, RowPlace]) -> None:
        """Read these shards once more from these places, if their cursors are past them."""
        for shard, place in places.items():
            cursor = self._cursors[shard]
            if place < cursor.deep:
                cursor.again = place if cursor.again is None else min(cursor.again, place)

    def _head_is_due(self, cursor: _Cursor, now: float) -> bool:
        """Whether to read the head of a shard now.

        Never twice in a row: rounds longer than the interval would read nothing else.
        """
        cost = cursor.sweep_cost if cursor.began is None else cursor.head_cost
        interval = max(self._head_interval, min(_LONGEST, _SHARE * cost))
        return now - cursor.head_read_at >= interval and not cursor.head_read_last


def _next(cursor: _Cursor) -> RowPlace:
    """The place that is read next."""
    if cursor.again is not None and cursor.turn != "again":
        return cursor.again
    in_turn = cursor.is_stuck and cursor.began is not None and cursor.turn != "tail"
    return cursor.tail if in_turn and cursor.tail > cursor.deep else cursor.deep


def _turn_of(cursor: _Cursor, start: RowPlace) -> Literal["deep", "again", "tail"]:
    if start == cursor.again:
        return "again"
    return "deep" if start in {HEAD, cursor.deep} else "tail"


def _note_head(cursor: _Cursor, start: RowPlace, now: float, took: float) -> None:
    cursor.head_read_last = start == HEAD
    if start == HEAD:
        cursor.head_read_at = now
        cursor.head_cost = took


def _saw_up_to(cursor: _Cursor, start: RowPlace, end: RowPlace, began: float) -> None:
    """Move a cursor after a read that a limit cut at `end`: there are more rows."""
    cursor.last = max(cursor.last, end.position)
    if cursor.turn == "tail":
        cursor.tail = end
        return
    if cursor.again is not None and start <= cursor.again:
        cursor.again = max(cursor.again, end)
    if cursor.began is None and (start == HEAD or end > cursor.deep):
        cursor.began = began
        cursor.deep = end
    else:
        cursor.deep = max(cursor.deep, end)
    _forget_again(cursor)


def _saw_the_rest(cursor: _Cursor, start: RowPlace, found: Sequence[OutboxRow], now: float) -> None:
    """Move a cursor after a read that saw all rows after its start.

    Most rows that commit from now on have a later position.
    """
    if found:
        cursor.last = max(cursor.last, found[-1].position)
    before = cursor.last - _OVERLAP
    near = RowPlace(before, HEAD.event_id) if before > 0 else HEAD
    if cursor.turn == "tail":
        cursor.tail = max(cursor.tail, near)
        return
    if cursor.again is not None and start <= cursor.again:
        cursor.again = None
    if cursor.began is not None:
        cursor.sweep_cost = now - cursor.began
    elif cursor.head_read_last:
        cursor.sweep_cost = cursor.head_cost
    cursor.began = None
    cursor.deep = cursor.tail = near
    _forget_again(cursor)


def _forget_again(cursor: _Cursor) -> None:
    """Drop `again` if the sweep will read its rows anyway."""
    if cursor.again is not None and cursor.again >= cursor.deep:
        cursor.again = None


def _more_to_read(found: Sequence[OutboxRow], limit: int) -> bool:
    """Whether the limit of rows or of bytes cut the read."""
    seen = found[0].seen
    return seen >= limit or len(found) < seen
