"""Readings of the status since the console started, in bounded memory. No I/O."""

from typing import Final

import msgspec

_MOST: Final = 600


class Sample(msgspec.Struct, frozen=True):
    """One reading. `at` is Unix time in seconds.

    `waiting` is the number of waiting messages, at least so many if `more`.
    `oldest_seconds` is the age of the oldest one, 0 if none waits.
    `written` and `delivered` are messages per second; None if unknown.
    """

    at: float
    waiting: int
    more: bool
    oldest_seconds: float
    written: float | None
    delivered: float | None


class History:
    """All samples, until there are 600. Then every second one is dropped, and so on."""

    def __init__(self) -> None:
        self._kept: list[Sample] = []
        self._latest: Sample | None = None
        self._seen = 0
        self._stride = 1

    def add(self, sample: Sample) -> None:
        """Add a sample that is later than all others."""
        self._latest = sample
        if self._seen % self._stride == 0:
            self._kept.append(sample)
        self._seen += 1
        if len(self._kept) > _MOST:
            del self._kept[1::2]
            self._stride *= 2

    @property
    def samples(self) -> list[Sample]:
        """The samples in order of time; the first and the latest are always among them."""
        if self._latest is None or self._kept[-1] is self._latest:
            return list(self._kept)
        return [*self._kept, self._latest]
