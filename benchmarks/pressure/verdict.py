"""The minutes of a contestant, and whether the goals hold. No I/O."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

RATIO = 3.0
"""The most that the 99th percentile may grow under pressure."""

BACKLOG = 2.0
"""The seconds of events that may wait at the end of a minute."""


class Minute(NamedTuple):
    """A minute of a run: events that were written and relayed, and how many waited at its end.

    Times are in ms: of the way from the call of the write to the sink, and of the write alone.
    `dead` has the dead rows per table, as PostgreSQL counts them.
    """

    number: int
    is_quiet: bool
    written: int
    relayed: int
    backlog: int
    p50: float
    p99: float
    max: float
    write_p99: float
    dead: Mapping[str, int]
    load: float


class Verdict(NamedTuple):
    """What pressure did: the worst p99 to that of the quiet minute, and the largest backlog."""

    p99_ratio: float
    backlog: int
    rate: float

    @property
    def holds(self) -> bool:
        """Whether both goals hold."""
        return self.p99_ratio <= RATIO and self.backlog <= BACKLOG * self.rate


def verdict(minutes: Sequence[Minute], rate: float) -> Verdict | None:
    """Judge the minutes of a run. None if it ended before a minute under pressure."""
    quiet = [each for each in minutes if each.is_quiet]
    pressed = [each for each in minutes if not each.is_quiet]
    if not quiet or not pressed:
        return None
    worst = max(each.p99 for each in pressed)
    return Verdict(worst / quiet[-1].p99, max(each.backlog for each in pressed), rate)
