"""How topics share the memory and the messages on their way. No I/O.

A topic has a *credit*, the part of the memory and of the messages on their way that it may use.
It begins with the least credit. Each answer of the broker adds some, up to a quarter of all. A
topic without an answer for five seconds has the least credit again. So a silent topic leaves nearly
everything to the others, and a quick one soon has what it needs. While half of the memory is
free, each topic may use a little more, so that a new one need not begin with many small reads.

If the credits are more than there is, the topics that want most get equal parts, and one part is
left for a topic that comes next (max-min fairness). The *share* of a topic is its credit, or
that part if it is smaller.

A topic above its share is *full*: reads pass over its rows until it uses half of its share.
Messages on their way cannot be taken back. So a topic may have some in any case, within its share.

The rows that failed before have a share of their own, as if they were one more topic. Each has a
time, and must not wait for it behind the backlog of its topic.
"""

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

RETRIES: Final = "\0"
"""The share of the rows that failed before; no topic has this name, since no text in the database
has a NUL."""

MAX_ROWS: Final = 20_000
MAX_BYTES: Final = 32 << 20
"""The limits of the rows in memory, with settled rows that are not deleted yet."""

_MOST: Final = 1 / 4
"""The highest credit, so that one topic that falls silent leaves room for others at once."""

_LEAST: Final = 1 / 128
"""The credit of a new or silent topic."""

OWN: Final = 1 / 32
"""The messages on their way that a topic may have in any case, if its share allows so many."""

_SPARE: Final = 1 / 32
"""What a topic may use beyond its credit while half of the memory is free: more than one read."""

_GROWTH: Final = 2
"""For each answered message, a topic may have so many more: its credit doubles in a round trip."""

_SILENT: Final = 5.0
"""Seconds without an answer after which a topic counts as silent; most sinks give up by then."""


class Use(msgspec.Struct):
    """The rows of a topic in memory: `busy` are on their way, `done` wait for their deletion."""

    heard_at: float
    rows: int = 0
    size: int = 0
    busy: int = 0
    done: int = 0
    credit: float = _LEAST
    is_heard: bool = False
    """Whether the broker answered since the last review, which then notes the time."""
    has_spare: bool = True
    """Whether it may use the spare part: not after its rows were dropped, until an answer."""

    @property
    def part(self) -> float:
        """The part of the memory that these rows take: the larger of rows and bytes."""
        return max(self.rows / MAX_ROWS, self.size / MAX_BYTES)


class Shares:
    """The uses of all topics that have a row in memory, and which topics are full."""

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0
        self.uses: dict[str, Use] = {}
        """By topic, and by `RETRIES`, which is one more."""
        self.full: set[str] = set()
        """Those that use all that they may."""
        self._level = 1.0
        """The largest share, if all credits together are more than there is."""
        self._spare = _SPARE
        self._now = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the memory is full."""
        return self.rows >= MAX_ROWS or self.size >= MAX_BYTES

    @property
    def full_topics(self) -> Collection[str]:
        """The full ones whose rows reads pass over."""
        return self.full - {RETRIES}

    @property
    def waits_for_deletion(self) -> bool:
        """Whether a full topic has little else than rows to delete."""
        full = (self.uses.get(topic) for topic in self.full)
        return any(use is not None and 2 * use.done >= use.rows for use in full)

    def add(self, share: str, rows: int, size: int) -> None:
        """Record that rows came into memory, with `size` bytes."""
        self.rows += rows
        self.size += size
        use = self.uses.get(share)
        if use is None:
            use = self.uses[share] = Use(self._now)
        use.rows += rows
        use.size += size

    def remove(self, share: str, rows: int, size: int) -> None:
        """Record that rows left the memory."""
        self.rows -= rows
        self.size -= size
        use = self.uses[share]
        use.rows -= rows
        use.size -= size
        if not use.rows:
            del self.uses[share]

    def note_answers(self, share: str, rows: int, size: int) -> None:
        """Record that the broker took or judged rows on their way."""
        use = self.uses[share]
        use.is_heard = use.has_spare = True
        if use.credit < _MOST:
            part = max(rows / MAX_ROWS, size / MAX_BYTES)
            use.credit = min(_MOST, use.credit + _GROWTH * part)

    def review(self, now: float) -> None:
        """Note which topics are full now."""
        self._now = now
        for use in self.uses.values():
            if use.is_heard or not use.busy:
                use.is_heard, use.heard_at = False, now
            elif now - use.heard_at > _SILENT:
                use.credit = _LEAST
        has_spare = 2 * self.rows < MAX_ROWS and 2 * self.size < MAX_BYTES
        self._spare = _SPARE if has_spare else 0.0
        # What a full topic wants is unknown, but it gets no more than its credit.
        self._level = _level(
            use.credit if topic in self.full else min(use.part, use.credit)
            for topic, use in self.uses.items()
        )
        self.full = {topic for topic in self.full if not self._has_room(topic)}
        self.full.update(topic for topic, use in self.uses.items() if self.is_above(use))

    def is_above(self, use: Use) -> bool:
        """Whether a topic uses more of the memory than its share."""
        return use.part > self._share(use)

    def to_send(self, topic: str) -> float:
        """The part of the messages on their way that a topic may use."""
        return min(self.uses[topic].credit, self._level)

    def _has_room(self, topic: str) -> bool:
        """Whether a topic uses so little of the memory that it is worth a read."""
        use = self.uses.get(topic)
        return use is None or 2 * use.part <= self._share(use)

    def _share(self, use: Use) -> float:
        spare = self._spare if use.has_spare else 0.0
        return min(use.credit + spare, self._level)


def _level(demands: Iterable[float]) -> float:
    """The share that no topic may exceed, so that all and one more get what they demand or this."""
    left, ordered = 1.0, sorted(demands)
    others = len(ordered) + 1
    for demand in ordered:
        if demand * others >= left:
            break
        left -= demand
        others -= 1
    return left / others
