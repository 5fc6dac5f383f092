"""The counts of many runs, and the seeds whose runs broke a rule."""

from collections import Counter
from dataclasses import dataclass, field

from .history import History
from .points import POINTS
from .schedule import Schedule

SHOWN = 3
"""The number of broken rules that are kept per seed."""


@dataclass
class Tally:
    """The sums over runs. `broken` maps a seed to the first rules that its run broke."""

    schedules: int = 0
    events: int = 0
    arrivals: int = 0
    duplicates: int = 0
    dead: int = 0
    seconds: float = 0.0
    """Virtual time."""
    faults: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    """How often the relay came to each rare point."""
    broken: dict[int, list[str]] = field(default_factory=dict)

    def note(self, schedule: Schedule, history: History, broken: list[str]) -> None:
        """Count a run."""
        self.schedules += 1
        self.events += len(history.committed)
        self.arrivals += len(history.arrivals)
        self.duplicates += len(history.arrivals) - len({a.row for a in history.arrivals})
        self.dead += sum(change.kind == "buried" for change in history.changes)
        self.seconds += history.end
        self.faults += history.counts
        if broken:
            self.broken[schedule.seed] = broken[:SHOWN]

    def add(self, other: "Tally") -> None:
        """Count the runs of another tally."""
        self.schedules += other.schedules
        self.events += other.events
        self.arrivals += other.arrivals
        self.duplicates += other.duplicates
        self.dead += other.dead
        self.seconds += other.seconds
        self.faults += other.faults
        self.points += other.points
        self.broken |= other.broken

    def lines(self) -> list[str]:
        """The counts as text."""
        return [
            f"{self.schedules:>10,} schedules, {self.seconds / 3600:,.0f} hours of virtual time",
            f"{self.events:>10,} events written, {self.dead:,} died",
            f"{self.arrivals:>10,} deliveries, {self.duplicates:,} of them duplicates",
            *(f"{count:>10,} {name}" for name, count in sorted(self.faults.items())),
            *(f"{self.points[name]:>10,} times: {name}" for name, *_ in POINTS),
            f"{len(self.broken):>10,} schedules that broke a rule",
        ]
