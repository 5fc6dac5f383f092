"""Whether anybody records, at next to no cost while nobody does."""

from collections.abc import Callable
from time import monotonic
from typing import Final

_INTERVAL: Final = 1.0
"""Seconds between looks: a provider that is set later is noticed within that time."""


class Live:
    """Asks `is_set` once a second at most, until it says yes; a global provider, once set, stays.

    OpenTelemetry looks into the environment each time it is asked for a global
    provider that is not there: more than the rest of a message's facts cost.
    """

    __slots__ = ("_is_live", "_is_set", "_next")

    def __init__(self, is_set: Callable[[], bool], *, is_live: bool) -> None:
        self._is_set = is_set
        self._is_live = is_live
        self._next = float("-inf")

    def __call__(self) -> bool:
        """Whether somebody records."""
        if not self._is_live and (now := monotonic()) >= self._next:
            self._next = now + _INTERVAL
            self._is_live = self._is_set()
        return self._is_live
