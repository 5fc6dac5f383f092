"""From where to look for the oldest message that waits. No I/O."""

from time import time
from typing import Final

HEAD_POSITION: Final = -(1 << 63)
"""The position before every message."""

_QUICK: Final = 0.1
"""Seconds that a look from the head may take, to be taken each time."""

_SHARE: Final = 20
"""A look from the head that took longer comes after this many times its duration."""

_BEFORE: Final = 60
"""Seconds before now, from where the other looks begin if no message waited."""


class OldestLook:
    """From where to look for the oldest message: from the head, unless that takes long.

    While an old snapshot is open, the database keeps deleted rows, and a look from the head
    passes over all of them. Then most looks begin where the last one found a message.
    """

    def __init__(self) -> None:
        self._head_at = float("-inf")
        self._since = HEAD_POSITION

    def since(self, now: float) -> int:
        """The position to look from."""
        return HEAD_POSITION if now >= self._head_at else self._since

    def note(self, since: int, oldest: int | None, *, began: float, now: float) -> None:
        """Record a look: the position of the oldest message, or None if no message waits."""
        self._since = _shortly_before_now() if oldest is None else oldest
        self._note_seconds(since, now - began, now)

    def note_failure(self, since: int, *, began: float, now: float) -> None:
        """Record a look without an answer."""
        if since == self._since:
            self._since = _shortly_before_now()
        self._note_seconds(since, now - began, now)

    def _note_seconds(self, since: int, seconds: float, now: float) -> None:
        if since == HEAD_POSITION and seconds > _QUICK:
            self._head_at = now + _SHARE * seconds


def _shortly_before_now() -> int:
    return round((time() - _BEFORE) * 1_000_000)
