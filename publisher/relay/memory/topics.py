"""Topics that cannot take messages now. No I/O.

Either the broker answered `Unavailable` for a topic, or an operator paused it. Its rows are
passed over. A topic that the broker refused is tried with one message at a time.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from dsql_outbox.publisher.outbox_rows import OutboxRow, RowId

from .breaker import Breaker

WHOLE: Final = ""
"""Stands among the topics that an operator paused for all of them: the target is paused."""

_TELL: Final = 60.0
"""Seconds between two log lines about one topic."""


class Pause:
    """A topic that the broker refuses, and the row that it is tried with."""

    def __init__(self, breaker: Breaker, row: RowId) -> None:
        self.breaker = breaker
        self.probe: RowId | None = row
        self.is_probing = False
        self.told_at = float("-inf")


class TopicPauses:
    """The topics that take no messages; times are of the event loop's clock."""

    def __init__(self, open_for: float) -> None:
        self._open_for = open_for
        self._pauses: dict[str, Pause] = {}
        self.by_operator: Mapping[str, str] = {}
        """The topics that an operator paused, with the reasons."""

    @property
    def names(self) -> AbstractSet[str]:
        """All topics that are paused."""
        if not self.by_operator:
            return self._pauses.keys()
        return self._pauses.keys() | self.by_operator.keys()

    @property
    def found(self) -> AbstractSet[str]:
        """The topics that the broker refused."""
        return self._pauses.keys()

    def takes(self, row: OutboxRow, now: float) -> bool:
        """Whether a row may be admitted: its topic is not paused, or it is tried with this row."""
        if row.topic in self.by_operator or WHOLE in self.by_operator:
            return False
        pause = self._pauses.get(row.topic)
        if pause is None:
            return True
        return pause.probe in {None, row.id} and not pause.breaker.wait(now)

    def choose(self, row: OutboxRow) -> None:
        """Record that a row is admitted: if its topic is paused, it is the one to try it with."""
        if pause := self._pauses.get(row.topic):
            pause.probe = row.id

    def passed_over(self, now: float) -> Collection[str]:
        """The topics whose rows no read shall return now."""
        tried = {
            topic
            for topic, pause in self._pauses.items()
            if not pause.is_probing and not pause.breaker.wait(now)
        }
        return self.names - (tried - self.by_operator.keys())

    def probes(self, now: float) -> list[RowId]:
        """The rows to try now."""
        due = (p for p in self._pauses.values() if not p.is_probing and not p.breaker.wait(now))
        return [pause.probe for pause in due if pause.probe is not None]

    def next_at(self, now: float) -> float:
        """Seconds until the next topic may be tried; infinity if none is paused."""
        waits = (p.breaker.wait(now) for p in self._pauses.values() if not p.is_probing)
        return min(waits, default=float("inf"))

    def sending(self, row: OutboxRow) -> None:
        """Record that a row is sent: if its topic is paused, it is the one to try it with."""
        if pause := self._pauses.get(row.topic):
            pause.probe, pause.is_probing = row.id, True

    def refused(self, row: OutboxRow, now: float) -> bool:
        """Record that the broker refused the topic of a row. Returns whether to log that."""
        pause = self._pauses.get(row.topic)
        if pause is None:
            pause = Pause(Breaker(failures=1, open_for=self._open_for), row.id)
            self._pauses[row.topic] = pause
            pause.breaker.failed(now)
        elif pause.probe == row.id:
            pause.is_probing = False
            pause.breaker.failed(now)
        is_due = now - pause.told_at >= _TELL
        if is_due:
            pause.told_at = now
        return is_due

    def worked(self, topic: str) -> bool:
        """Record that the broker took or judged a message. Returns whether the topic was paused."""
        return self._pauses.pop(topic, None) is not None

    def missed(self, row: RowId) -> None:
        """Record that the row to try a topic with is gone, or was not sent."""
        for pause in self._pauses.values():
            if pause.probe == row:
                pause.probe, pause.is_probing = None, False
