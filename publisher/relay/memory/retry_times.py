"""When failed rows are tried again. No I/O."""

from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from dsql_outbox.schema.outbox_rows import RowId

from .subjects import Hold, Subject


class _Entry(NamedTuple):
    """A failed row with the time of its next attempt; the number is unique, so it decides ties."""

    retry_at: float
    number: int
    subject: Subject
    hold: Hold


class RetryTimes:
    """The failed rows of all shards, by the time of their next attempt.

    It forgets a row whose subject has rows in memory. Such a subject adds the row again when it
    has none left.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._numbers = count()

    def add(self, subject: Subject, hold: Hold) -> None:
        """Have a row tried at its time, if it is not listed. Blocked ones wait for an operator."""
        if hold.listed_at != hold.retry_at < float("inf"):
            hold.listed_at = hold.retry_at
            heappush(self._heap, _Entry(hold.retry_at, next(self._numbers), subject, hold))

    def put_off(self, subject: Subject, hold: Hold, until: float) -> None:
        """Have a row tried later, whose time has come; or when a topic takes messages again."""
        hold.retry_at, hold.is_put_off = until, True
        self.add(subject, hold)

    def forget(self, subject: Subject, row: RowId) -> None:
        """Drop the hold of a row that failed earlier: it is delivered, dead or gone."""
        subject.holds = [hold for hold in subject.holds if hold.id != row]
        if subject.holds:
            self.add(subject, subject.holds[0])
        subject.want_passed()
        subject.shard.forget_if_idle(subject)

    def take_due(self, now: float, most: int, size: int) -> list[Subject]:
        """Take up to `most` subjects whose first failed row may be tried now.

        Those rows have at most `size` bytes; but one of them is taken in any case.
        """
        due: list[Subject] = []
        while self._heap and len(due) < most and self._heap[0].retry_at <= now:
            first = self._heap[0]
            is_valid = _is_valid(first)
            if is_valid and due and first.hold.size > size:
                break
            self._pop()
            if is_valid:
                size -= first.hold.size
                subject = first.subject
                subject.shard.closed.pop(subject.key, None)  # or the read would pass it over
                due.append(subject)
        return due

    def seconds_left(self, now: float) -> float:
        """Seconds until the next row may be tried; infinity if none waits for a time."""
        while self._heap:
            first = self._heap[0]
            if _is_valid(first):
                return max(0.0, first.retry_at - now)
            self._pop()
        return float("inf")

    def forget_outdated(self) -> None:
        """Forget the rows that hold no subject back any more; else they stay until their times."""
        self._heap = [entry for entry in self._heap if _is_valid(entry)]
        heapify(self._heap)

    def _pop(self) -> None:
        entry = heappop(self._heap)
        if entry.hold.listed_at == entry.retry_at:
            entry.hold.listed_at = None


def _is_valid(entry: _Entry) -> bool:
    """Whether an entry is not out of date, and the row not in memory already."""
    subject, hold = entry.subject, entry.hold
    return (
        subject.hold is hold
        and hold.listed_at == hold.retry_at == entry.retry_at
        and not subject.busy
        and not subject.rows
        and not subject.shard.is_lost
    )
