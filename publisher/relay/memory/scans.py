"""Decides where a shard is read next. No I/O; callers pass the time.

Presence is the state: a row in the outbox waits. No place is stored. A place only saves
reading the same rows again. Transactions commit out of order, so every scan comes back. Two
scans go through a shard side by side, each on by key from where it was:

- The *sweep* begins at the head and ends when it has seen all rows. Then it rests. The
  next sweep finds what committed late.
- The *tail* begins one second before now by the database's clock, since most transactions commit
  within a second, and finds what is new. In a shard that was just taken it begins as much earlier
  as a take-over may have lasted. It comes back there many times a second, so a stretch of rows that
  wait, or a position in the future, hides nothing.

Where an old snapshot is open, the database keeps deleted rows, and a read passes over each of
them. A sweep that takes long by that goes in *stretches*, none of which keeps the tail waiting.

Others return to rows that were passed over: those of a topic that had no room in memory or whose
shard had no lease, those of a subject, and those of a topic that the map is tried with again.

So the tail passes sick or hot stretches of a shard by, and the sweep finds the rest.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from dsql_outbox.publisher.relay.store import HEAD, LAST, RangeRead, RowPlace

_OVERLAP: Final = 1_000_000
"""Microseconds before now, where the tail begins."""

_PASS: Final = 0.05
"""Seconds after which the tail begins again; until then it reads what comes after its end."""

_REST: Final = 1.0
"""The shortest rest of a sweep in seconds. A row that was committed late may wait for so long; an
idle publisher reads about as often in any case."""

_SHARE: Final = 20
"""A sweep rests for this many times its duration, so it takes a twentieth of the time."""

_LONGEST: Final = 60.0
"""The longest rest of a sweep in seconds."""

MAX_VISITS: Final = 1_000
"""The most rows that one range looks at; passing over 1,000 rows takes 2 ms, and new rows wait."""


QUICK: Final = 0.01
"""Seconds that the sweeps of one read may take, about; the new rows wait for them."""

_MOST_STRETCHES: Final = 64
"""The most stretches of a sweep, about. Each is a read, and costs a little by itself."""


class Scan:
    """A way through a shard that continues by key from `place`.

    `is_running` says that rows after `place` may not have been seen.
    """

    def __init__(self, place: RowPlace) -> None:
        self.place: RowPlace = place
        self.is_running = True
        self._visits = 0

    def visits(self, rows: int) -> int:
        """The number of rows to look at, to find `rows` that are not passed over."""
        return max(rows, self._visits)

    def note_range(self, found: RangeRead, rows: int) -> None:
        """Record the answer to a read of `rows` rows; few found mean that most are passed over."""
        self.place, self.is_running = found.end, found.is_cut
        is_sparse = found.is_cut and len(found.rows) * 4 < rows * 3
        self._visits = min(MAX_VISITS, 2 * self.visits(rows)) if is_sparse else 0


class Stretch(NamedTuple):
    """The positions of a shard up to `until`, and the seconds to pass over deleted rows there."""

    until: int
    seconds: float


class Sweep(Scan):
    """The scan of all rows of a shard, again and again, with a rest after each time.

    It knows from the last time in which stretches to go, so that no read takes long.
    """

    def __init__(self) -> None:
        super().__init__(HEAD)
        self.is_running = False  # `is_due` begins it, and notes when
        self.beginning = 0
        """The number of the last beginning. The answer to a read that was asked before it says
        nothing about the rows of this sweep: it may have passed over those that are looked for."""
        self._began = 0.0
        self._next_at = float("-inf")
        self._stretches = [Stretch(LAST.position, 0.0)]
        self._seconds = [0.0]  # of each stretch so far, the one to read next as the last
        self.is_short = False
        """Whether the last sweep saw the whole shard in one read."""

    @property
    def stretch(self) -> Stretch:
        """What to read next: to its end, and how long that took the last time."""
        return self._stretches[len(self._seconds) - 1]

    @property
    def goes_to_the_end(self) -> bool:
        """Whether no position is after the stretch to read next."""
        return self.stretch.until == LAST.position

    def is_due(self, now: float) -> bool:
        """Whether to read on now; begins a sweep when its time has come."""
        if not self.is_running and now >= self._next_at:
            self.restart(now)
        return self.is_running

    def note_outage(self, now: float, seconds: float = 0.0) -> None:
        """Record that a read had no answer: an outage is no part of a sweep's duration.

        After `seconds` of the server this stretch is read alone.
        """
        self._began = now
        at, stretch = len(self._seconds) - 1, self.stretch
        self._stretches[at] = stretch._replace(seconds=max(seconds, stretch.seconds))

    def restart(self, now: float) -> None:
        """Begin at the head again."""
        self.place, self.is_running, self._began = HEAD, True, now
        self._seconds = [0.0]
        self.beginning += 1

    def note_read(
        self, found: RangeRead, rows: int, now: float, *, clock: int = 0, seconds: float = 0.0
    ) -> None:
        """Record the answer to a read that ended at `now`.

        The server took `seconds` more for it than usual; `clock` is its time, in microseconds.
        """
        is_whole = self.place == HEAD and not found.is_cut
        self.note_range(found, rows)
        if len(found.rows) * 2 < rows:  # else the time was for the rows
            self._seconds[-1] += seconds
        if self.is_running:
            return
        if not self.goes_to_the_end:
            self.place, self.is_running = RowPlace(self.stretch.until, LAST.event_id), True
            self._seconds.append(0.0)
            return
        self.is_short = is_whole
        passed = [
            Stretch(each.until, took)
            for each, took in zip(self._stretches, self._seconds, strict=True)
        ]
        self._stretches, self._seconds = _stretches(passed, clock - _OVERLAP), [0.0]
        rest = min(_LONGEST, _SHARE * (now - self._began))
        self._next_at = now + max(_REST, rest)


class Return(Scan):
    """The scan of rows that were passed over while their topics had no room in memory.

    It ends where the sweep is, which goes on meanwhile: a topic may have room for few of very
    many rows, and what is behind them must not wait until all are passed again.
    """

    def __init__(self) -> None:
        super().__init__(HEAD)
        self.is_running = False
        self.topics: set[str] = set()

    def begin(self, topic: str, place: RowPlace) -> None:
        """See the rows of one more topic, from `place` on."""
        if not self.is_running or place < self.place:
            self.place = place
        self.is_running = True
        self.topics.add(topic)

    def leave(self, topics: Collection[str]) -> list[str]:
        """Leave topics that have no room again. Returns those that the scan was for."""
        left = [topic for topic in self.topics if topic in topics]
        self.topics.difference_update(left)
        self.is_running = bool(self.topics)
        return left

    def note_read(self, found: RangeRead, rows: int, sweep: Sweep) -> None:
        """Record the answer to a read."""
        self.note_range(found, rows)
        if not self.is_running or (sweep.is_running and found.end >= sweep.place):
            self.leave(list(self.topics))


class Tail(Scan):
    """The scan of the newest rows; `since` is a time of the database's clock in microseconds."""

    def __init__(self, since: int) -> None:
        super().__init__(_place(since))
        self.home: RowPlace = self.place
        """Where a pass begins: one second before the last read, by the database's clock."""
        self._began = float("-inf")
        self._has_news = self._had_news = True

    @property
    def is_behind(self) -> bool:
        """Whether to continue now: rows are unseen, and this or the last pass had new rows."""
        return self.is_running and (self.place < self.home or self._has_news or self._had_news)

    def go_home(self, now: float) -> None:
        """Begin a new pass if it is time for one, and the tail is not far behind."""
        if self.place >= self.home and now - self._began >= _PASS:
            self.place, self._began = self.home, now
            self._had_news, self._has_news = self._has_news, False

    def note_read(self, found: RangeRead, rows: int, clock: int, *, new: bool) -> None:
        """Record the answer to a read; `new` says that it had new rows.

        `clock` is the time of the read by the database's clock, in microseconds.
        """
        self.home = _place(clock - _OVERLAP)
        self.note_range(found, rows)
        self._has_news |= new


def _stretches(passed: Sequence[Stretch], now: int) -> list[Stretch]:
    """The stretches of the next sweep, after one at the position `now` that passed these.

    The last one ends there from now on, and another follows. Neighbours that are quick become one.
    """
    total = sum(each.seconds for each in passed)
    if total <= QUICK:
        return [Stretch(LAST.position, total)]
    limit = max(QUICK, 2 * total / _MOST_STRETCHES)
    *closed, last = passed
    if not closed or closed[-1].until < now:
        closed.append(Stretch(now, last.seconds))
    merged = closed[:1]
    for each in closed[1:]:
        together = merged[-1].seconds + each.seconds
        if together <= limit:
            merged[-1] = Stretch(each.until, together)
        else:
            merged.append(each)
    return [*merged, last]


def _place(position: int) -> RowPlace:
    return RowPlace(position, HEAD.event_id)
