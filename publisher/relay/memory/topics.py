"""Topics that cannot take messages now. No I/O.

The broker answered `Unavailable` for a topic, or defers its messages and takes none. Or the map of
the publisher works for none of them, or an operator paused it. Its rows are passed over. A topic
that the broker refused is tried with one message at a time, and with another one each time if its
messages were deferred. One that cannot be mapped is tried with others than before, since a single
message may be at fault.

A writer chooses topics, so there may be any number that no broker takes. All that grows with them
has a limit: the topics that are tried in a time, passed over in a read, kept in memory, named to
others, and logged. A topic beyond a limit is refused again when one of its rows comes by.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from itertools import islice
from typing import Final, NamedTuple

from dsql_outbox.schema.outbox_rows import OutboxRow, RowId
from dsql_outbox.schema.refused_topics import RefusedTopic, RefusedTopics

WHOLE: Final = ""
"""Stands among the topics that an operator paused for all of them: the target is paused."""

MAX_TRIED: Final = 100
"""The most topics that are tried in the time of one pause; with more, each pause lasts longer."""

MAX_PASSED: Final = 1_000
"""The most refused topics that a read passes over; a row of another one is read in vain."""

MAX_PAUSES: Final = 10_000
"""The most refused topics that are kept in memory."""

MAX_NAMED: Final = 50
"""The most topics that are named to others, who learn the number of the rest."""

_TELL: Final = 60.0
"""Seconds between two log lines about one topic."""

_LINES: Final = 10
"""The most log lines in that time about all topics."""


class NamedTopics(NamedTuple):
    """Some topics in the order of their names, and how many `more` there are."""

    names: list[str]
    more: int


class Pause:
    """A topic that the broker refuses, and the row that it is tried with after `retry_at`."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.retry_at = float("-inf")
        self.probe: RowId | None = None
        self.is_probing = False
        self.is_told = False
        self.unmapped: set[RowId] | None = None
        """The rows for which the map failed last, if that is the reason: others come first."""
        self.is_open = False
        """Whether its rows are tried, if that is the reason."""

    def takes(self, row: RowId, now: float) -> bool:
        """Whether the topic may be tried with this row."""
        if self.unmapped is not None:
            return self.is_open and row not in self.unmapped
        return self.probe in {None, row} and self.retry_at <= now

    def rests(self, now: float) -> bool:
        """Whether no row shall be read."""
        if self.unmapped is not None:
            return not self.is_open
        return self.is_probing or now < self.retry_at


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
                "broker" if pause.unmapped is None else "map",
                round(now - pause.since, 3),
            )
            for topic, pause in named
        ]
        return RefusedTopics(topics, len(self._pauses) - len(topics))

    def is_paused(self, topic: str) -> bool:
        """Whether a topic takes no messages now, or one at a time."""
        by_operator = self.by_operator
        return topic in self._pauses or topic in by_operator or WHOLE in by_operator

    def takes(self, row: OutboxRow, now: float) -> bool:
        """Whether a row may be admitted: its topic is not paused, or it is tried with this row."""
        if row.topic in self.by_operator or WHOLE in self.by_operator:
            return False
        pause = self._pauses.get(row.topic)
        return pause is None or pause.takes(row.id, now)

    def choose(self, row: OutboxRow) -> None:
        """Record that a row is admitted: if its topic is paused, it is the one to try it with."""
        if (pause := self._pauses.get(row.topic)) and pause.unmapped is None:
            self._set_probe(row.topic, pause, row.id)

    def passed_over(self, now: float) -> Collection[str]:
        """The topics whose rows no read shall return now, or the first of very many."""
        resting = (topic for topic, pause in self._pauses.items() if pause.rests(now))
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
        if (pause := self._pauses.get(row.topic)) and pause.unmapped is None:
            self._set_probe(row.topic, pause, row.id)
            pause.is_probing = True

    def pause(self, row: OutboxRow, now: float) -> int | None:
        """Pause the topic of a row, which the broker refused, or go on with its pause.

        Returns None, or that it is to be logged: how many topics were left out of the log.
        """
        pause = self._pauses.get(row.topic)
        if pause is None or pause.unmapped is not None:
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
        if pause is None or pause.unmapped is None:
            pause = self._begin(row.topic, now)
            pause.unmapped = set()
        if len(pause.unmapped) >= MAX_TRIED:
            pause.unmapped.clear()
        pause.unmapped.add(row.id)
        pause.is_open, pause.retry_at = False, now + self._length
        return self._left_out(row.topic, pause, now)

    def open_unmapped(self, now: float) -> bool:
        """Have the topics tried that could not be mapped, if their time has come.

        Returns whether there are any. If others than the rows before are not found within the
        time of a pause, any row will do.
        """
        due = [p for p in self._pauses.values() if p.unmapped is not None and p.retry_at <= now]
        for pause in due:
            if pause.is_open:
                pause.unmapped = set()
            pause.is_open, pause.retry_at = True, now + self._length
        return bool(due)

    def is_unmapped(self, topic: str) -> bool:
        """Whether a topic is paused because it could not be mapped."""
        pause = self._pauses.get(topic)
        return pause is not None and pause.unmapped is not None

    @property
    def _length(self) -> float:
        """Seconds that a pause lasts."""
        return self.PAUSE * max(1.0, len(self._pauses) / MAX_TRIED)

    def _begin(self, topic: str, now: float) -> Pause:
        """Begin a pause, in place of one for another reason."""
        self._end(topic)
        if len(self._pauses) >= MAX_PAUSES:
            self._end(next(iter(self._pauses)))
        pause = self._pauses[topic] = Pause(now)
        return pause

    def _left_out(self, topic: str, pause: Pause, now: float) -> int | None:
        left_out = self._lines.take(topic, now)
        pause.is_told |= left_out is not None
        return left_out

    def resume(self, topic: str) -> Pause | None:
        """End the pause of a topic, whose message the broker took or judged. Returns the pause."""
        return self._end(topic)

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

    def _end(self, topic: str) -> Pause | None:
        pause = self._pauses.pop(topic, None)
        if pause is not None:
            self._set_probe(topic, pause, None)
        return pause


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
