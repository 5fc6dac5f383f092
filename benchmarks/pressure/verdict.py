"""The minutes of a contestant, and whether the goals hold. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

RATIO = 3.0
"""The most that the 99th percentile may grow under pressure."""

BACKLOG = 2.0
"""The seconds of events that may wait at the end of a minute."""


RESTART_MS, RESTART_SERVER_MS = 2_000.0, 500.0
"""The longest way of an event after a restart, and the CPU of the server, in ms."""


class Minute(NamedTuple):
    """A minute of a run: events that were written and relayed, and how many waited at its end.

    Times are in ms: of the way from the call of the write to the sink, and of the write alone.
    `server` is the CPU of the server for the relay's sessions, in ms.
    `dead` has the dead rows per table, as PostgreSQL counts them.
    After the last one the relay starts again, and has a few seconds.
    """

    number: int
    phase: Literal["quiet", "pressed", "restarted"]
    written: int
    relayed: int
    backlog: int
    p50: float
    p99: float
    max: float
    write_p99: float
    server: float
    dead: Mapping[str, int]
    load: float


class Verdict(NamedTuple):
    """What pressure did: the worst p99 to that of the quiet minute, and the largest backlog.

    `longest` and `server` are those of the restart.
    """

    p99_ratio: float
    backlog: int
    rate: float
    longest: float
    server: float

    @property
    def holds(self) -> bool:
        """Whether all goals hold."""
        is_steady = self.p99_ratio <= RATIO and self.backlog <= BACKLOG * self.rate
        return is_steady and self.longest <= RESTART_MS and self.server <= RESTART_SERVER_MS


def verdict(minutes: Sequence[Minute], rate: float) -> Verdict | None:
    """Judge the minutes of a run. None if one of the phases is missing."""
    quiet = [each for each in minutes if each.phase == "quiet"]
    pressed = [each for each in minutes if each.phase == "pressed"]
    restarted = [each for each in minutes if each.phase == "restarted"]
    if not (quiet and pressed and restarted):
        return None
    ratio = max(each.p99 for each in pressed) / quiet[-1].p99
    backlog = max(each.backlog for each in pressed)
    return Verdict(ratio, backlog, rate, restarted[-1].max, restarted[-1].server)
