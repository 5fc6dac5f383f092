"""The rows in memory: which are admitted, and which are sent next. No I/O.

It keeps the promise of order per subject:

- A row is admitted only if it is not known yet, and the subject's row before it is absent
  from the same snapshot, was admitted earlier, or is settled.
- Rows of a subject wait in the order of their admission. One of them is on its way at a time,
  so a slow subject delays only itself.
- A settled row stays known until a read that began after its deletion has ended, since an
  older snapshot still shows it.

A row that cannot be admitted is dropped, and its position noted, so that it is read again.
"""

from collections import deque
from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Final

from dsql_outbox.publisher.outbox_rows import OutboxRow, RowId
from dsql_outbox.publisher.relay.store import PassedOver, SubjectName

from .subjects import Shard, Subject
from .topics import TopicPauses

MAX_ROWS: Final = 20_000
MAX_BYTES: Final = 32 << 20
"""The limits of the rows in memory, with settled rows that are not deleted yet."""

MAX_PASSED: Final = 1_000
"""The most subjects that a read passes over; more make the statement slower than they save."""


_Position = tuple[str, bool, int]
"""A row as its successor names it: subject, whether both are replays, and position.

Replays follow each other only. A replay may have the position of an event that was
written after it, because replays do not move the position of the entity.
"""


class Queues:
    """The rows of all shards of one publisher."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self._ready: deque[Subject] = deque()
        self._resting: deque[tuple[float, Subject]] = deque()
        self._known: set[RowId] = set()
        self._positions: set[_Position] = set()
        self._settled: list[OutboxRow] = []
        self._forgotten_next: list[OutboxRow] = []

    @property
    def is_full(self) -> bool:
        """Whether the memory is full."""
        return self.rows >= MAX_ROWS or self.size >= MAX_BYTES

    def has_enough(self, subjects: int) -> bool:
        """Whether to read no more now: the memory is full, or so many subjects can send a row."""
        return self.is_full or len(self._ready) >= subjects

    def knows(self, row: RowId) -> bool:
        """Whether a row is in memory, or was until a moment ago."""
        return row in self._known

    # --- read --------------------------------------------------------------------------

    def begin_read(self) -> None:
        """Record that a read begins: its snapshot shows none of the rows settled so far."""
        self._forgotten_next += self._settled
        self._settled = []

    def end_read(self) -> None:
        """Forget the rows that were settled before the read began, which has ended now."""
        rows, self._forgotten_next = self._forgotten_next, []
        self._known.difference_update([row.id for row in rows])
        self._positions.difference_update(map(_position, rows))

    def admit(
        self,
        shard: Shard,
        rows: Iterable[OutboxRow],
        now: float,
        topics: TopicPauses,
        looked: int | None,
    ) -> int:
        """Admit the rows of one range. Returns how many came into memory.

        `looked` is the position from which on this read looks for rows again, if it does.
        """
        admitted = 0
        for row in rows:
            if row.id in self._known or (topics.names and not topics.takes(row, now)):
                continue
            key = row.key
            subject = shard.subject(SubjectName(row.subject_type, row.subject_id), key)
            if subject.holds_back(row.id, now) or subject.is_full:
                subject.pass_over(row.position)
            elif row.waits and (key, row.is_replay, row.previous_position) not in self._positions:
                self._wait_for_predecessor(subject, row, looked)
            else:
                self._add(subject, row)
                topics.choose(row)  # only now: a row that waits could never try its topic
                admitted += 1
        return admitted

    def _wait_for_predecessor(self, subject: Subject, row: OutboxRow, looked: int | None) -> None:
        """Drop a row; read from its predecessor on, unless a scan will come there anyway.

        If this read has looked there already, the predecessor was passed over, or
        belongs to a topic that is paused; the next sweep finds both.
        """
        shard = subject.shard
        before = row.previous_position
        is_ahead = shard.sweep.is_running and shard.sweep.place.position < before
        if not is_ahead and (looked is None or before < looked):
            subject.pass_over(before)
        shard.forget_if_idle(subject)

    def _add(self, subject: Subject, row: OutboxRow) -> None:
        row.size = row.bytes()
        self._known.add(row.id)
        self._positions.add(_position(row))
        self.rows += 1
        self.size += row.size
        subject.rows.append(row)
        if subject.busy is None and len(subject.rows) == 1:
            self._ready.append(subject)

    # --- send --------------------------------------------------------------------------

    def rotate(self, share: float) -> None:
        """Let other subjects come first; `share` of all of them, from 0 to 1, go last."""
        self._ready.rotate(-int(share * len(self._ready)))

    def take(self, most: int) -> list[Subject]:
        """Take the first rows of up to `most` subjects; each becomes the `busy` row of its own.

        The subjects take turns.
        """
        taken: list[Subject] = []
        ready = self._ready
        while ready and len(taken) < most:
            subject = ready.popleft()
            if subject.rows and subject.busy is None:  # else it was dropped or lost meanwhile
                subject.busy = subject.rows.popleft()
                taken.append(subject)
                if subject.passed is not None:
                    subject.want_passed()
        return taken

    def put_back(self, subject: Subject, rests_until: float) -> None:
        """Put the busy row back, to be sent again later; forget it if the shard was lost."""
        row = self.take_busy(subject)
        if subject.shard.is_lost:
            self.release(row)
        else:
            subject.rows.appendleft(row)
            self._resting.append((rests_until, subject))

    def end_rests(self, now: float) -> float:
        """Let subjects go on whose rest is over. Returns seconds until the next rest ends."""
        while self._resting and self._resting[0][0] <= now:
            self._ready.append(self._resting.popleft()[1])
        return self._resting[0][0] - now if self._resting else float("inf")

    def delivered(self, subject: Subject) -> OutboxRow:
        """Take the busy row, which the broker has; `go_on` is the next step."""
        row = self.take_busy(subject)
        if subject.shard.is_lost:  # it was forgotten, but is in the table until it is deleted
            self._known.add(row.id)
            self._positions.add(_position(row))
        return row

    def go_on(self, subject: Subject) -> None:
        """Let a subject send its next row, or take rows that were passed over."""
        if subject.rows:
            self._ready.append(subject)
        elif subject.passed is not None:
            subject.want_passed()
        elif not subject.holds:
            subject.shard.subjects.pop(subject.key, None)

    def drop(self, subject: Subject) -> None:
        """Drop the rows of a subject that must wait, from its busy row on; they are read again."""
        if subject.busy is not None:
            subject.rows.appendleft(self.take_busy(subject))
        if not subject.rows:
            return
        first = subject.rows[0].position
        for row in subject.rows:
            self._forget(row)
            self.release(row)
        subject.rows.clear()  # first: a subject that is full would not want its rows back
        subject.pass_over(first)

    def take_busy(self, subject: Subject) -> OutboxRow:
        """Take the busy row of a subject, which then has none."""
        row, subject.busy = subject.busy_row, None
        return row

    # --- settle ------------------------------------------------------------------------

    def settled(self, rows: Collection[OutboxRow]) -> None:
        """Record that rows were deleted; reads that began earlier may still show them."""
        self._settled += rows
        self.rows -= len(rows)
        self.size -= sum([row.size for row in rows])

    def lose(self, shard: Shard) -> None:
        """Forget a shard that belongs to another publisher, or to this one under another epoch."""
        shard.is_lost = True
        for subject in shard.subjects.values():
            if subject.busy is not None:
                self._forget(subject.busy)
            for row in subject.rows:
                self._forget(row)
                self.release(row)
            subject.rows.clear()

    def release(self, row: OutboxRow) -> None:
        """Record that a row has left the memory."""
        self.rows -= 1
        self.size -= row.size

    def _forget(self, row: OutboxRow) -> None:
        self._known.discard(row.id)
        self._positions.discard(_position(row))


def _position(row: OutboxRow) -> _Position:
    return row.key, row.is_replay, row.position


def passed_over(shards: Iterable[Shard], topics: Collection[str]) -> PassedOver:
    """The subjects and topics that the next read passes over."""
    closed = chain.from_iterable(shard.closed.values() for shard in shards)
    subjects = islice(closed, MAX_PASSED)
    return PassedOver({s.name: s.passed for s in subjects if s.passed is not None}, topics)
