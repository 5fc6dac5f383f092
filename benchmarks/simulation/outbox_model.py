"""A model of the tables of the relay: each method is one statement, applied at one moment.

Under snapshot isolation, a statement that reads only the rows that it changes behaves so, or
fails with a conflict; `wire` lets it fail. A read is of one snapshot, and its answer may be
old when it arrives.
"""

import math
from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.publisher.relay.sql_store import reading_of
from dsql_outbox.publisher.relay.store import (
    LAST,
    Failure,
    PassedOver,
    Range,
    Reading,
    RowPlace,
    StoredFailure,
    StoredWait,
    SubjectName,
)
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import RawRow, RowId

from .history import Answered, Arrival, Changed, Committed, History, name_of
from .schedule import Fate

EPOCH: Final = 1_800_000_000
"""The database's time at true time 0, in seconds since the Unix epoch."""

PAYLOAD: Final = "{}"

_SPELL: Final = 4_000_000
"""Microseconds for which reads take long, and then do not."""

_LONG: Final = 50_000
"""Microseconds of such a read; they are noted, and do not pass."""


class NewRow(NamedTuple):
    """A row as a writer inserts it."""

    id: RowId
    previous: int
    subject: SubjectName
    version: int
    topic: str
    replay: int
    is_late: bool
    is_sick: bool
    is_broken: bool
    fate: Fate | None = None

    def columns(self, *, predecessor: bool) -> tuple[Any, ...]:
        """The columns of the row as the relay's read returns them."""
        headers = f'{{"replay":"{self.replay}"}}' if self.replay else "{}"
        if self.is_broken:
            headers = "[]"
        about = (*self.subject, self.version, self.topic, headers, PAYLOAD)
        return (*self.id, self.previous, *about, self.id.position, predecessor)


def id_of(row: RawRow) -> RowId:
    """The key of a row of a read."""
    return RowId(*row[1:4])


class _Failed(NamedTuple):
    at: float
    attempts: int
    retry_at: float


class Origin(NamedTuple):
    """The sender of a statement, and the true time at which it was sent."""

    publisher: str
    sent_at: float


class Tables:
    """The outbox, its failures and its dead letters; `now` returns true time."""

    def __init__(self, now: Callable[[], float], *histories: History) -> None:
        self._now = now
        self._histories = histories
        self.rows: dict[RowId, NewRow] = {}
        self.failures: dict[RowId, _Failed] = {}
        self.paused: defaultdict[int, Counter[str]] = defaultdict(Counter)
        """How many pauses of each topic of a target by an operator last now."""
        self._keys: defaultdict[int, list[RowId]] = defaultdict(list)
        self._chain = Counter[tuple[int, SubjectName, int]]()
        """How many rows of a subject have a position: a replay may have that of an event."""
        self._used: set[RowId] = set()

    def clock(self) -> int:
        """The database's time in microseconds since the Unix epoch."""
        return round((EPOCH + self._now()) * 1_000_000)

    # --- writers -----------------------------------------------------------------------

    def insert(self, row: NewRow) -> None:
        """Commit a row."""
        if row.id in self._used:
            self._of(row.id).faults.append(f"the key of {name_of(row.id)} is used twice")
        if row.id in self.rows:
            return  # the primary key refuses it
        self._used.add(row.id)
        self.rows[row.id] = row
        insort(self._keys[row.id.shard], row.id)
        self._chain[row.id.shard, row.subject, row.id.position] += 1
        self._of(row.id).committed.append(
            Committed(
                at=self._now(),
                row=row.id,
                subject=row.subject,
                version=row.version,
                replay=row.replay,
                topic=row.topic,
                is_late=row.is_late,
                is_sick=row.is_sick,
                is_broken=row.is_broken,
                is_skipped=row.fate == "skips",
            )
        )

    def discard(self, target: int) -> None:
        """Delete what was inserted for a target up to now, before anyone relays it."""
        for row in [row for row in self.rows if row.shard // TARGET_SHARDS == target]:
            self._remove(row)
        history = self._histories[target]
        history.committed = [each for each in history.committed if each.row in self.rows]

    # --- the relay ---------------------------------------------------------------------

    def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        """See `Store.read`. Now and then it takes long, as if rows that were deleted are passed.

        It is made of raw rows as `SqlStore` makes it. A server returns them in no order.
        """
        found = [
            row for number, each in enumerate(ranges) for row in self._read(number, each, passed)
        ]
        return reading_of(len(ranges), found[::-1])

    def _read(self, number: int, of: Range, passed: PassedOver) -> Iterator[tuple[Any, ...]]:
        """The raw rows of ``outbox_read`` for one range, and its end."""
        end, size, found = of.after, 0, 0
        looked = 0
        is_cut = False
        for key in islice(self._after(of), of.visits):
            row = self.rows[key]
            since = passed.subjects.get(row.subject)
            if row.topic not in passed.topics and (since is None or key.position < since):
                size += len(PAYLOAD)
                if found and (found == of.rows or size > of.size):
                    is_cut = True
                    break
                waits = self._chain[of.shard, row.subject, row.previous] > 0
                yield number, *row.columns(predecessor=waits), None
                found += 1
            looked += 1
            end = RowPlace(key.position, key.event_id)
        clock = self.clock()
        took = _LONG * (clock // _SPELL % 2)
        nothing = ("", "", 0, "", "{}", None)
        yield number, of.shard, *end, took, *nothing, clock, False, is_cut or looked == of.visits

    def _after(self, of: Range) -> Iterator[RowId]:
        keys = self._keys[of.shard]
        end = bisect_right(keys, RowId(of.shard, of.until, LAST.event_id))
        return islice(keys, bisect_right(keys, RowId(of.shard, *of.after)), end)

    def have(self, rows: Sequence[RowId]) -> bool:
        """Whether all rows are there."""
        return all(row in self.rows for row in rows)

    def failed(self, row: RowId, origin: Origin) -> None:
        """Note that the function failed a message."""
        answer = Answered(self._now(), row, origin.publisher, "Retry")
        self._of(row).answers.append(answer)

    def apply(self, rows: Sequence[RowId], origin: Origin) -> bool:
        """See `Store.apply`: commit a transaction that deletes the rows. What it changed counts."""
        if not self.have(rows):
            return False
        for row in rows:
            history, now = self._of(row), self._now()
            history.answers.append(Answered(origin.sent_at, row, origin.publisher, "Delivered"))
            history.arrivals.append(Arrival(now, row, origin.publisher))
        self.delete(rows, origin)
        return True

    def delete(self, rows: Collection[RowId], origin: Origin) -> int:
        """See `Store.delete`."""
        existed = [row for row in rows if self._remove(row)]
        self._note("deleted", existed, origin)
        return len(existed)

    def record(self, failures: Collection[Failure], origin: Origin) -> None:
        """See `Store.record`."""
        for each in failures:
            wait = math.inf if each.seconds is None else each.seconds
            attempts, retry_at = each.attempts, self._now() + wait
            if each.row in self.failures:
                before = self.failures[each.row]
                attempts, retry_at = max(attempts, before.attempts), max(retry_at, before.retry_at)
            self.failures[each.row] = _Failed(self._now(), attempts, retry_at)
            kind = "blocked" if each.seconds is None else "recorded"
            self._note(kind, [each.row], origin, each.attempts)

    def forget(self, rows: Collection[RowId], origin: Origin) -> None:
        """See `Store.forget`."""
        for row in rows:
            self.failures.pop(row, None)
        self._note("forgotten", rows, origin)

    def bury(self, letters: Collection[Letter], origin: Origin) -> None:
        """See `Store.bury`."""
        for letter in letters:
            if self._remove(letter.row):
                self.failures.pop(letter.row, None)
                self._note("buried", [letter.row], origin, letter.attempts)

    def stored_failures(self, shards: Collection[int]) -> list[StoredFailure]:
        """See `Store.stored_failures`."""
        return [
            StoredFailure(row, self.rows[row].subject, each.attempts, each.retry_at - self._now())
            for row, each in self.failures.items()
            if row.shard in shards and row in self.rows
        ]

    def stored_waits(self, rows: Collection[RowId]) -> dict[RowId, StoredWait]:
        """See `Store.stored_waits`."""
        recorded = {row: self.failures[row] for row in rows if row in self.failures}
        return {
            row: StoredWait(each.attempts, each.retry_at - self._now())
            for row, each in recorded.items()
            if row in self.rows
        }

    def paused_topics(self, target: int) -> dict[str, str]:
        """See `Store.paused_topics`."""
        paused = self.paused[target].items()
        return {topic: "by an operator" for topic, pauses in paused if pauses}

    # --- the judge ---------------------------------------------------------------------

    def left(self, target: int) -> dict[RowId, bool]:
        """The rows of a target that are there, and whether each waits for an operator."""
        return {
            row: row in self.failures and self.failures[row].retry_at == math.inf
            for row in self.rows
            if row.shard // TARGET_SHARDS == target
        }

    def is_done(self) -> bool:
        """Whether each row is blocked, or waits behind a blocked one of its subject."""
        if not self.rows:
            return True
        blocked = {
            (row.shard, self.rows[row].subject): row
            for row, each in self.failures.items()
            if row in self.rows and each.retry_at == math.inf
        }
        firsts = ((blocked.get((row.shard, each.subject)), row) for row, each in self.rows.items())
        return all(first is not None and first <= row for first, row in firsts)

    def _of(self, row: RowId) -> History:
        """The history of the target of a row."""
        return self._histories[row.shard // TARGET_SHARDS]

    def _remove(self, row: RowId) -> bool:
        gone = self.rows.pop(row, None)
        if gone is not None:
            keys = self._keys[row.shard]
            del keys[bisect_right(keys, row) - 1]
            self._chain[row.shard, gone.subject, row.position] -= 1
        return gone is not None

    def _note(self, kind: str, rows: Collection[RowId], origin: Origin, attempts: int = 0) -> None:
        at = self._now()
        for row in rows:
            changes = self._of(row).changes
            changes.append(Changed(at, origin.sent_at, kind, row, origin.publisher, attempts))
