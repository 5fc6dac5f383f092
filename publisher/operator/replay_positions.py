"""The places in the outbox that replayed messages get: pure, told the time."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An event that may be replayed, as the database knows it.

    `key` is the subject, `headers` those of its message, `size` the payload's
    bytes. `last_position` is the highest of the subject's events and of this event's
    replays, 0 for none; `replays` counts those before; `died_at` is set for a dead
    letter. `fault` says why its headers can be no message's, if so.
    """

    event_id: UUID
    key: str
    headers: dict[str, str]
    size: int
    last_position: int
    replays: int
    waiting: bool
    died_at: datetime | None = None
    fault: str | None = None


class Placed(NamedTuple):
    """A candidate with its place; both positions are microseconds, 0 for no message before it."""

    candidate: Candidate
    position: int
    previous_position: int

    @property
    def number(self) -> int:
        """Which replay of its event this is, from 1."""
        return self.candidate.replays + 1


class Places:
    """The places of one run, so that its messages of a subject are relayed in its order.

    Their positions rise per subject and start behind the subject's last event. They are
    above those of the event's earlier rows too, so that a key is never used twice.
    Each names the run's message before it, which the relay waits for.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def place(self, candidates: Sequence[Candidate], now_us: int) -> list[Placed]:
        """Give each its place; `keep` what was committed. `now_us` is the database's clock."""
        last: dict[str, int] = {}
        placed: list[Placed] = []
        for candidate in candidates:
            key = candidate.key
            previous = last.get(key) or self._last.get(key, 0)
            position = max(now_us, candidate.last_position + 1, previous + 1)
            last[key] = position
            placed.append(Placed(candidate, position, previous))
        return placed

    def keep(self, placed: Iterable[Placed]) -> None:
        """Remember the places of messages that are in the outbox now."""
        for each in placed:
            self._last[each.candidate.key] = each.position
