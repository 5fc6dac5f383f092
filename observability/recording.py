"""Whether an OpenTelemetry provider records, checked at little cost."""

from collections.abc import Callable
from time import monotonic
from typing import Final

_INTERVAL: Final = 1.0
"""Seconds between two checks, so a provider that is set later is noticed within this time."""


class Recording:
    """Calls `is_set` at most once per second until it returns true, then never again.

    A global provider cannot be unset, so the answer stays true. Until one is set,
    OpenTelemetry reads the environment each time it is asked for it, which costs
    more than all other work for the facts of a message.
    """

    __slots__ = ("_is_live", "_is_set", "_next")

    def __init__(self, is_set: Callable[[], bool], *, is_live: bool) -> None:
        self._is_set = is_set
        self._is_live = is_live
        self._next = float("-inf")

    def __call__(self) -> bool:
        """Whether a provider records."""
        if not self._is_live and (now := monotonic()) >= self._next:
            self._next = now + _INTERVAL
            self._is_live = self._is_set()
        return self._is_live
