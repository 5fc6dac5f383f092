"""Topics that cannot take messages now. No I/O.

The broker answered `Unavailable` for a topic, or defers its messages and takes none. Or the map of
the publisher works for none of them, or an operator paused it. Its rows are passed over. A topic
that the broker refused is tried with one message at a time, and with another one each time if its
messages were deferred. One that cannot be mapped is tried with a few after each other, up to its
last one and then from the first one on, since some messages may be at fault, however many.

A writer chooses topics, so there may be any number that no broker takes. All that grows with them
has a limit: the topics that are tried in a time, passed over in a read, kept in memory, named to
others, and logged. A topic beyond a limit is refused again when one of its rows comes by.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from itertools import islice
from typing import Final, NamedTuple

from dsql_outbox.publisher.relay.store import HEAD
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId
from dsql_outbox.schema.refused_topics import MAX_NAMED, RefusedTopic, RefusedTopics

from .scans import Scan

MAX_TRIED: Final = 100
"""The most topics that are tried in the time of one pause; with more, each pause lasts longer."""

MAX_PASSED: Final = 1_000
"""The most refused topics that a read passes over; a row of another one is read in vain."""

MAX_PAUSES: Final = 10_000
"""The most refused topics that are kept in memory."""

_STEP: Final = 1 / 20
"""The part of a pause after which the map is tried with the next rows of a topic."""

_TELL: Final = 60.0
"""Seconds between two log lines about one topic."""

_LINES: Final = 10
"""The most log lines in that time about all topics."""


class NamedTopics(NamedTuple):
    """Some topics in the order of their names, and how many `more` there are."""

    names: list[str]
    more: int


class Trial:
    """How the map is tried with a topic, while it works for no message of it: a few rows at a time.

    It remembers no row that the map failed for, but how far it came in each shard. So it comes to
    every row, however many the map fails for.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.rows: set[RowId] = set()
        """Those that it is tried with now, as a scan has found them."""
        self.failed: set[RowId] = set()
        """Those that failed before, which are read by their keys. A scan finds them, too, whether
        their time has come or not, so these have room of their own."""
        self._scans: dict[int, Scan] = {}

    def scan(self, shard: int) -> Scan:
        """The way through the rows of a shard; it is not running if it has come to their end."""
        return self._scans.setdefault(shard, Scan(HEAD))

    @property
    def tried(self) -> AbstractSet[RowId]:
        """All rows that it is tried with now."""
        return self.rows | self.failed

    def begin_step(self) -> None:
        """Go on with other rows."""
        self.rows.clear()
        self.failed.clear()

    def begin_again(self) -> None:
        """Go on with the first row of each shard."""
        self._scans.clear()


class Pause:
    """A topic that the broker refuses, and the row that it is tried with after `retry_at`."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.retry_at = float("-inf")
        self.probe: RowId | None = None
        self.is_probing = False
        self.is_told = False
        self.trial: Trial | None = None
        """If the map works for none of its messages, what is tried instead of `probe`."""

    def takes(self, row: RowId, now: float) -> bool:
        """Whether the topic may be tried with this row."""
        if self.trial is not None:
            return row in self.trial.rows or row in self.trial.failed
        return self.probe in {None, row} and self.retry_at <= now

    def rests(self, now: float) -> bool:
        """Whether no scan shall read its rows; a trial has scans of its own."""
        return self.trial is not None or self.is_probing or now < self.retry_at


class TopicPauses:
    """The topics that take no messages; times are of the event loop's clock."""

    PAUSE: Final = 5.0
    """Seconds between two tries of a refused topic, with one message each: the others wait no
    longer than this after the topic takes messages again."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        self._probed: dict[RowId, str] = {}
        """The topics of the rows that topics are tried with."""
        self._deferred: dict[str, float] = {}
        """When the broker first deferred a message of a topic, since when it took none."""
        self._lines = _Lines()
        self.by_operator: Mapping[str, str] = {}
        """The topics that an operator paused, with the reasons."""

    @property
    def are_paused(self) -> bool:
        """Whether any topic is paused."""
        return bool(self._pauses or self.by_operator)

    @property
    def refused(self) -> AbstractSet[str]:
        """The topics that the broker refused."""
        return self._pauses.keys()

    def names(self) -> NamedTopics:
        """The topics that are paused, first those that an operator paused."""
        found = self._pauses.keys() - self.by_operator.keys()
        names = sorted(self.by_operator)[:MAX_NAMED]
        names += nsmallest(MAX_NAMED - len(names), found)
        return NamedTopics(names, len(self.by_operator) + len(found) - len(names))

    def refused_topics(self, now: float) -> RefusedTopics:
        """The topics that the broker refuses or the map fails for, and for how long so far."""
        named = nsmallest(MAX_NAMED, self._pauses.items(), key=lambda each: each[0])
        topics = [
            RefusedTopic(
                topic,
                "broker" if pause.trial is None else "map",
                round(now - pause.since, 3),
            )
            for topic, pause in named
        ]
        return RefusedTopics(topics, len(self._pauses) - len(topics))

    def is_paused(self, topic: str) -> bool:
        """Whether a topic takes no messages now, or one at a time."""
        return topic in self._pauses or topic in self.by_operator

    def takes(self, row: OutboxRow, now: float) -> bool:
        """Whether a row may be admitted: its topic is not paused, or it is tried with this row."""
        if row.topic in self.by_operator:
            return False
        pause = self._pauses.get(row.topic)
        return pause is None or pause.takes(row.id, now)

    def choose(self, row: OutboxRow) -> None:
        """Record that a row is admitted: if its topic is paused, it is the one to try it with."""
        if (pause := self._pauses.get(row.topic)) and pause.trial is None:
            self._set_probe(row.topic, pause, row.id)

    def passed_over(self, now: float, tried: Collection[str] = ()) -> Collection[str]:
        """The topics whose rows no read shall return now, or the first of very many.

        Those of topics that are `tried` it shall, if no operator paused them.
        """
        resting = (
            topic
            for topic, pause in self._pauses.items()
            if topic not in tried and pause.rests(now)
        )
        return {*self.by_operator, *islice(resting, MAX_PASSED)}

    def probes(self, now: float) -> list[RowId]:
        """The rows to try now."""
        due = (p.probe for p in self._pauses.values() if not p.is_probing and p.retry_at <= now)
        return list(islice((row for row in due if row is not None), MAX_TRIED))

    def seconds_left(self, now: float) -> float:
        """Seconds until the next topic may be tried; infinity if none is paused."""
        times = (p.retry_at for p in self._pauses.values() if not p.is_probing)
        return max(0.0, min(times, default=float("inf")) - now)

    def note_sent(self, row: OutboxRow) -> None:
        """Record that a row is sent: if its topic is paused, it is the one to try it with."""
        if (pause := self._pauses.get(row.topic)) and pause.trial is None:
            self._set_probe(row.topic, pause, row.id)
            pause.is_probing = True

    def pause(self, row: OutboxRow, now: float) -> int | None:
        """Pause the topic of a row, which the broker refused, or go on with its pause.

        Returns None, or that it is to be logged: how many topics were left out of the log.
        """
        pause = self._pauses.get(row.topic)
        if pause is None or pause.trial is not None:
            pause = self._begin(row.topic, now)
            self._set_probe(row.topic, pause, row.id)
        if pause.probe == row.id:  # else it was sent before the topic was paused
            pause.is_probing = False
            pause.retry_at = now + self._length
        return self._left_out(row.topic, pause, now)

    def note_deferred(self, topic: str, now: float) -> bool:
        """Record that the broker deferred a message. Returns whether to pause the topic.

        That is if it is paused, or if none of its messages was taken for the time of a pause.
        """
        if len(self._deferred) >= MAX_PAUSES and topic not in self._deferred:
            del self._deferred[next(iter(self._deferred))]
        since = self._deferred.setdefault(topic, now)
        return topic in self._pauses or now - since >= self.PAUSE

    def note_taken(self, topic: str) -> None:
        """Record that the broker took or judged a message."""
        if self._deferred:
            self._deferred.pop(topic, None)

    def pause_unmapped(self, row: OutboxRow, now: float) -> int | None:
        """Pause the topic of a row for which the map failed, as for each one before it.

        Returns what `pause` returns.
        """
        pause = self._pauses.get(row.topic)
        if pause is None or pause.trial is None:
            pause = self._begin(row.topic, now)
            pause.trial = Trial(row.topic)
            pause.retry_at = now + self._length
        return self._left_out(row.topic, pause, now)

    def is_unmapped(self, topic: str) -> bool:
        """Whether a topic is paused because it could not be mapped."""
        pause = self._pauses.get(topic)
        return pause is not None and pause.trial is not None

    @property
    def unmapped(self) -> AbstractSet[str]:
        """The topics that could not be mapped."""
        return {topic for topic, pause in self._pauses.items() if pause.trial is not None}

    def next_trial(self, now: float) -> Trial | None:
        """The trial whose time came first, if any has come."""
        due = [p for p in self._pauses.values() if p.trial is not None and p.retry_at <= now]
        return min(due, key=lambda each: each.retry_at).trial if due else None

    def rest_trial(self, trial: Trial, now: float) -> None:
        """Let a trial go on a step later; with very many topics, as long as all of them need."""
        step = max(_STEP, len(self._pauses) / MAX_TRIED)
        self._put_off(trial, now + self.PAUSE * step)

    def end_trial(self, trial: Trial, now: float) -> None:
        """Let a trial begin again after a pause: it has come to the end of all shards."""
        trial.begin_again()
        self._put_off(trial, now + self._length)

    def _put_off(self, trial: Trial, until: float) -> None:
        pause = self._pauses.get(trial.topic)
        if pause is not None and pause.trial is trial:
            pause.retry_at = until

    def try_with(self, row: OutboxRow, most: int) -> None:
        """Try the map with a row that failed before, unless `most` rows are tried now."""
        pause = self._pauses.get(row.topic)
        if pause is not None and pause.trial is not None and len(pause.trial.failed) < most:
            pause.trial.failed.add(row.id)

    @property
    def _length(self) -> float:
        """Seconds that a pause lasts."""
        return self.PAUSE * max(1.0, len(self._pauses) / MAX_TRIED)

    def _begin(self, topic: str, now: float) -> Pause:
        """Begin a pause, in place of one for another reason."""
        self.resume(topic)
        if len(self._pauses) >= MAX_PAUSES:
            self.resume(next(iter(self._pauses)))
        pause = self._pauses[topic] = Pause(now)
        return pause

    def _left_out(self, topic: str, pause: Pause, now: float) -> int | None:
        left_out = self._lines.take(topic, now)
        pause.is_told |= left_out is not None
        return left_out

    def resume(self, topic: str) -> Pause | None:
        """End the pause of a topic, which the broker has taken or judged. Returns the pause."""
        pause = self._pauses.pop(topic, None)
        if pause is not None:
            self._set_probe(topic, pause, None)
        return pause

    def give_up_probe(self, row: RowId) -> None:
        """Record that the row to try a topic with is gone, or was not sent."""
        topic = self._probed.get(row)
        if topic is not None:
            pause = self._pauses[topic]
            self._set_probe(topic, pause, None)
            pause.is_probing = False

    def _set_probe(self, topic: str, pause: Pause, row: RowId | None) -> None:
        if pause.probe is not None:
            del self._probed[pause.probe]
        pause.probe = row
        if row is not None:
            self._probed[row] = topic


class _Lines:
    """Which pauses to log: one per topic and `_TELL` seconds, and `_LINES` of all topics."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._left_out: set[str] = set()
        self._before = 0
        self._ends_at = float("-inf")

    def take(self, topic: str, now: float) -> int | None:
        """Return None, or that a line is due: how many topics the time before it left out."""
        if now >= self._ends_at:
            self._told = {name: at for name, at in self._told.items() if now - at < _TELL}
            self._before, self._left_out = len(self._left_out), set[str]()
            self._ends_at = now + _TELL
        if topic in self._told:
            return None
        if len(self._told) >= _LINES:
            if len(self._left_out) < MAX_PAUSES:
                self._left_out.add(topic)
            return None
        self._told[topic] = now
        self._left_out.discard(topic)
        left_out, self._before = self._before, 0
        return left_out
