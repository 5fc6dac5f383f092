"""The positions in the outbox that replayed messages get; no I/O, no clock of its own."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

_SUBJECTS: Final = 100_000
"""The largest number of subjects whose positions are remembered: those replayed last."""


_HIGHEST_POSITION: Final = 1 << 62
"""Far above every time in microseconds, and far below the limit of the column."""

_HIGHEST_NUMBER: Final = (1 << 31) - 1


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An event that may be replayed, as read from the database.

    `key` is the subject, `headers` are those of the message, and `size` is the size
    of the payload in bytes. `last_position` is the highest position of the subject's
    events and of this event's replays, in microseconds, or 0. `replays` counts the
    earlier replays. `waiting` says that a message of the event is in the outbox now.
    `type`, `topic` and `shard` are those of the message. `at` is when the event was
    saved, or when its message was given up. `fault` says why the
    headers are invalid, or is None.
    `now_us` is the database's time, in microseconds since the Unix epoch.
    `is_taken`: the target takes the type of the subject. `died_at` is the part of a dead
    letter's key.
    """

    event_id: UUID
    key: str
    type: str
    topic: str
    shard: int
    at: datetime
    headers: dict[str, str]
    size: int
    last_position: int
    replays: int
    waiting: bool
    now_us: int
    is_taken: bool = True
    fault: str | None = None
    died_at: str | None = None

    @property
    def can_be_sent(self) -> bool:
        """Whether its headers are valid, and a position and a number are left for a replay.

        A row may hold any number. None that a writer makes is near the limits.
        """
        has_place = self.last_position < _HIGHEST_POSITION and self.replays < _HIGHEST_NUMBER
        return self.fault is None and has_place


class Placed(NamedTuple):
    """A candidate with its position in the outbox, in microseconds.

    `previous_position` is that of the previous message of its subject in this run, or 0 if
    there is none.
    """

    candidate: Candidate
    position: int
    previous_position: int

    @property
    def number(self) -> int:
        """The number of this replay of the event, from 1."""
        return self.candidate.replays + 1


class Positions:
    """Assigns the positions of one run, so that the relay keeps the order per subject.

    The positions of a subject rise, and start after the subject's last event. They are also
    above those of the event's earlier rows, so that no key of a row is used twice. Each
    message names the position of the previous message of its subject in this run, and the
    relay waits for that one.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def place(self, candidates: Sequence[Candidate]) -> list[Placed]:
        """Assign positions; call `keep` with the result after the commit."""
        last: dict[str, int] = {}
        placed: list[Placed] = []
        for candidate in candidates:
            key = candidate.key
            previous = last.get(key) or self._last.get(key, 0)
            position = max(candidate.now_us, candidate.last_position + 1, previous + 1)
            last[key] = position
            placed.append(Placed(candidate, position, previous))
        return placed

    def keep(self, placed: Iterable[Placed]) -> None:
        """Remember the positions of messages whose transaction was committed."""
        for each in placed:
            self._last.pop(each.candidate.key, None)
            self._last[each.candidate.key] = each.position
        while len(self._last) > _SUBJECTS:
            del self._last[next(iter(self._last))]
