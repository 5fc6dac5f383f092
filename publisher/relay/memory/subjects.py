"""The relay's state of a shard and of each subject in it. No I/O."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from heapq import heappop, heappush
from typing import Final

import msgspec

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.relay.store import HEAD, RangeRead, RowPlace, StoredFailure, SubjectName
from dsql_outbox.publisher.sinks.port import MAX_RUN_BYTES
from dsql_outbox.schema.outbox_rows import Fault, OutboxRow, RowId, messages_of

from .scans import Return, Scan, Sweep, Tail

MAX_WAITING: Final = 64
"""The most rows of one subject that wait, so that a hot subject leaves room for others."""

_SWEEPS: Final = 2
"""The sweeps after which no failed row is left that no subject knows: one may be on its way."""

_RUNS: Final = 4
"""A subject that is sent in runs may have so many times the rows of its last one instead."""


class Hold(msgspec.Struct):
    """A row that failed `attempts` times, or was deferred; its subject waits until `retry_at`.

    `retry_at` is a time of the event loop's clock; infinity when blocked. `size` is in bytes.
    `is_stored` says that the database knows this failure. `listed_at` is the `retry_at` with which
    `RetryTimes` has the row, or None. `is_put_off` says that its time had come, but the row could
    not be sent, for example because its topic is paused. The broker deferred it `deferrals` times
    since it failed, of which no table knows.
    """

    id: RowId
    attempts: int
    retry_at: float
    size: int = 0
    is_stored: bool = False
    listed_at: float | None = None
    is_put_off: bool = False
    deferrals: int = 0


class Subject:
    """The rows of one entity: those that wait in memory, and the run that is on its way.

    A run is one row, or several if the sink keeps their order (`keeps_prefix`). Its first row is
    *the busy row*: the next answer is about it. Any other answer than `Delivered` ends the run,
    and the rows behind the busy row wait again.
    """

    __slots__ = ("busy", "holds", "id", "key", "passed", "room", "rows", "shard", "topic", "type")

    def __init__(self, shard: "Shard", key: str, subject_type: str, subject_id: str) -> None:
        self.shard = shard
        self.key = key
        self.type = subject_type
        self.id = subject_id
        self.rows: list[OutboxRow] = []
        self.busy: list[OutboxRow] = []
        """The rest of the run that is being published; or its first row, which is being applied
        or, when it was given up, buried."""
        self.room = MAX_WAITING
        """How many of its rows may wait in memory."""
        self.holds: list[Hold] = []
        """Its failed rows, in order; the first one holds the subject back."""
        self.passed: int | None = None
        """The position from which on rows were passed over that must be read again."""
        self.topic: str | None = None
        """The topic of the row that was passed over last, if that is known."""

    @property
    def name(self) -> SubjectName:
        """The entity, as the columns of its rows name it."""
        return SubjectName(self.type, self.id)

    @property
    def hold(self) -> Hold | None:
        """The failed row that holds the subject back."""
        return self.holds[0] if self.holds else None

    @property
    def busy_row(self) -> OutboxRow:
        """The first row that is on its way; there must be one."""
        if not self.busy:
            raise AssertionError("the subject has no row on its way")
        return self.busy[0]

    @property
    def busy_hold(self) -> Hold | None:
        """The hold of the busy row, if that row failed earlier; `hold` may be of a later row."""
        hold = self.hold
        return hold if hold is not None and hold.id == self.busy_row.id else None

    def begin(self, longest: int) -> None:
        """Let the first rows be on their way: a run of at most `longest`, of one topic.

        A row that failed before is sent alone, and so is a replay, which has an order of its own.
        """
        rows, length = self.rows, 1
        first = rows[0]
        if longest > 1 and len(rows) > 1 and not (first.is_replay or self.holds):
            size = first.size
            for row in rows[1:longest]:
                size += row.size
                if row.topic != first.topic or row.is_replay or size > MAX_RUN_BYTES:
                    break
                length += 1
            self.room = max(MAX_WAITING, _RUNS * length)
        self.busy = rows[:length]
        del rows[:length]

    @property
    def attempt(self) -> int:
        """The number of the attempt to send the busy row, from 1."""
        hold = self.busy_hold if self.holds else None
        return 1 if hold is None else hold.attempts + 1

    def note_failure(self, hold: Hold) -> None:
        """Let the busy row, which has failed, hold the subject back."""
        if self.busy_hold is None:
            self.holds.insert(0, hold)
        else:
            self.holds[0] = hold

    @property
    def is_full(self) -> bool:
        """Whether enough of its rows are in memory."""
        return len(self.rows) >= self.room

    @property
    def takes_passed(self) -> bool:
        """Whether the rows that were passed over can be taken now, since few are in memory."""
        if self.passed is None or len(self.rows) > self.room // 2:
            return False
        return not self.holds or self.passed < self.holds[0].id.position

    def holds_back(self, row: RowId, now: float) -> bool:
        """Whether a failed row holds this one back.

        Rows before it go: it failed after they were sent, but they were not deleted,
        and it waits for them.
        """
        hold = self.hold
        if hold is None:
            return False
        return hold.retry_at > now if hold.id == row else row.position >= hold.id.position

    @property
    def is_idle(self) -> bool:
        """Whether nothing is known of it that must be kept."""
        return not (self.rows or self.busy or self.holds) and self.passed is None

    @property
    def can_be_forgotten(self) -> bool:
        """Whether its failed rows are all that is known of it, and the database knows them."""
        is_stored = all(hold.is_stored or not hold.attempts for hold in self.holds)
        return bool(self.holds) and is_stored and not (self.rows or self.busy)

    def pass_over(self, position: int, topic: str | None = None) -> None:
        """Record that a row of this position was passed over; None: its topic is not known."""
        self.topic = topic or self.topic
        if self.passed is None or position < self.passed:
            self.passed = position
            self.close()
            self.want_passed()

    def close(self) -> None:
        """Have reads pass over its rows, unless those that were passed over are wanted."""
        if self.passed is not None and not self.takes_passed:
            self.shard.closed[self.key] = self

    def want_passed(self) -> None:
        """Have the rows that were passed over read again, if they can be taken now."""
        if self.passed is not None and self.takes_passed:
            self.shard.closed.pop(self.key, None)
            heappush(self.shard.wanted, (self.passed, self.key))


def messages_in(subjects: Iterable[Subject], picked_up_ns: int) -> Iterator[Message | Fault]:
    """The messages of runs, or why they are not valid; `picked_up_ns` is the time."""
    runs = [(row, each.attempt, each.shard.epoch) for each in subjects for row in each.busy]
    rows, attempts, epochs = zip(*runs, strict=True) if runs else ((), (), ())
    raw, keys = [row.raw for row in rows], [row.key for row in rows]
    return messages_of(raw, keys, picked_up_ns, attempts=attempts, epochs=epochs)


class Shard:
    """One shard under one epoch of its lease; a lost shard is forgotten as a whole."""

    def __init__(self, number: int, epoch: int) -> None:
        self.number = number
        self.epoch = epoch
        self.is_lost = False
        self.subjects: dict[str, Subject] = {}
        self.closed: dict[str, Subject] = {}
        """The subjects whose rows reads pass over, from `passed` on."""
        self.wanted: list[tuple[int, str]] = []
        """A heap of positions to read again, with their subjects; some are out of date."""
        self._asked: list[tuple[int, str]] = []
        self._asked_at = 0
        self.full_topics: dict[str, RowPlace] = {}
        """Where the scans began to pass over a topic that had no room in memory, or no lease."""
        self._parked: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        """What is wanted of such a topic."""
        self.again = Scan(HEAD)
        self.back = Return()
        self.sweep = Sweep()
        self.tail: Tail | None = None
        """None until the time of the database's clock is known."""
        self._sweeps_left = 0

    @property
    def held(self) -> int:
        """The number of subjects that a failed row holds back."""
        return sum(1 for subject in self.subjects.values() if subject.holds)

    def subject(self, key: str, subject_type: str, subject_id: str) -> Subject:
        """The subject with this key, a new one if nothing is known of it."""
        found = self.subjects.get(key)
        if found is None:
            found = self.subjects[key] = Subject(self, key, subject_type, subject_id)
        return found

    def forget_if_idle(self, subject: Subject) -> None:
        """Forget a subject of which nothing must be kept."""
        if subject.is_idle:
            self.subjects.pop(subject.key, None)
            self.closed.pop(subject.key, None)

    def forget(self, subject: Subject) -> None:
        """Forget a subject whose failed rows the database knows, to be found by a read again."""
        subject.holds.clear()  # so that its retry time is out of date
        self.subjects.pop(subject.key, None)
        self.closed.pop(subject.key, None)
        self.note_unknown_failures()

    def note_unknown_failures(self) -> None:
        """Record that rows of the shard have failed of which no subject knows."""
        self._sweeps_left = _SWEEPS

    def knows_failure(self, row: OutboxRow) -> bool:
        """Whether a subject knows that this row has failed."""
        subject = self.subjects.get(row.key)
        return subject is not None and any(hold.id == row.id for hold in subject.holds)

    def note_sweep(self) -> None:
        """Record the end of a sweep."""
        self._sweeps_left = max(0, self._sweeps_left - 1)

    @property
    def has_unknown_failures(self) -> bool:
        """Whether a row that is read may have failed before, although no subject knows it."""
        return self._sweeps_left > 0

    def pass_topics(self, topics: Iterable[str], place: RowPlace) -> None:
        """Record that a read passes over the rows of topics from `place` on."""
        for topic in topics:
            self.full_topics[topic] = min(place, self.full_topics.get(topic, place))

    @property
    def passes_topics(self) -> bool:
        """Whether reads pass over a topic, or return to one."""
        return bool(self.full_topics or self._parked or self.back.is_running)

    def leave_topics(self, full: Collection[str]) -> None:
        """Return no further to the rows of topics that have no room again."""
        self.pass_topics(self.back.leave(full), self.back.place)

    def reopen_topics(self, full: Collection[str]) -> None:
        """Return to the rows that were passed over, except those of topics that are full."""
        for topic in [each for each in self._parked if each not in full]:
            for wanted in self._parked.pop(topic):
                heappush(self.wanted, wanted)
        for topic in [each for each in self.full_topics if each not in full]:
            self.back.begin(topic, self.full_topics.pop(topic))

    @property
    def wants(self) -> bool:
        """Whether rows that were passed over may be read now."""
        while self.wanted and not self._is_wanted(*self.wanted[0]):
            heappop(self.wanted)
        return bool(self.wanted)

    def ask_again(self, full: Collection[str] = ()) -> RowPlace | None:
        """The place from which to read rows again that were passed over, or None.

        Those of a `full` topic wait. Later requests belong to the next read.
        """
        if full and self.wants:
            self._park(full)
        if not self.wants:
            return None
        self._asked, self.wanted = self.wanted, []
        self._asked_at = self._asked[0][0]
        return RowPlace(self._asked[0][0], HEAD.event_id)

    def _park(self, full: Collection[str]) -> None:
        """Set aside what is wanted of topics that have no room."""
        asked, self.wanted = self.wanted, []
        for position, key in asked:
            subject = self.subjects.get(key)
            if subject is not None and subject.topic is not None and subject.topic in full:
                self._parked[subject.topic].append((position, key))
            else:
                heappush(self.wanted, (position, key))

    def begin_again(self, end: RowPlace | None) -> list[Subject]:
        """Take the subjects whose rows the read has looked for, as far as `end`.

        The caller then admits the rows, and notes again which ones are passed over. None:
        there was no answer.
        """
        subjects: list[Subject] = []
        asked, later = self._asked, self.wanted
        while asked and end is not None and asked[0][0] <= end.position:
            position, key = heappop(asked)
            subject = self.subjects.get(key)
            if subject is not None and subject.passed == position:
                subject.passed = None
                subjects.append(subject)
        for each in later:
            heappush(asked, each)
        self.wanted, self._asked = asked, []
        return subjects

    def finish_again(self, subjects: Iterable[Subject], found: RangeRead) -> None:
        """Note, after the rows were admitted, where the rows behind them are."""
        is_all = not found.is_cut or (self.sweep.is_running and found.end >= self.sweep.place)
        # At one position there may be more rows than one read takes; the next sweep finds them.
        behind = max(found.end.position, self._asked_at + 1)
        for subject in subjects:
            if not is_all:
                subject.pass_over(behind)
            self.forget_if_idle(subject)

    def _is_wanted(self, position: int, key: str) -> bool:
        subject = self.subjects.get(key)
        return subject is not None and subject.passed == position and subject.takes_passed

    def restore_failure(self, failure: StoredFailure, key: str, now: float) -> Hold:
        """Hold a subject back because of a failure that the database knows."""
        subject = self.subject(key, *failure.subject)
        retry_at = now + failure.seconds
        hold = Hold(failure.row, failure.attempts, retry_at, failure.size, is_stored=True)
        subject.holds.append(hold)
        subject.holds.sort(key=lambda each: each.id)
        subject.pass_over(hold.id.position)
        return hold
