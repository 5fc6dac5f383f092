"""The counts of a run of `write`."""

from dataclasses import dataclass, field
from time import monotonic

from dsql_outbox.observability import Fact, WriteEnded
from dsql_outbox.outbox import DuplicateEvent, Receipt


@dataclass
class Tally:
    """Counts events by result.

    It is also a hook, because only facts report the conflicts of events that fail.
    """

    stored: int = 0
    retried: int = 0
    duplicates: int = 0
    failed: int = 0
    other_content: int = 0
    """How many of the failed events have the id of a different stored event."""
    conflicts: int = 0
    _began: float = field(default_factory=monotonic)

    def __call__(self, fact: Fact, /) -> None:
        """Add the conflicts of a write that has ended."""
        if isinstance(fact, WriteEnded):
            self.conflicts += fact.conflicts

    def add(self, receipt: Receipt) -> None:
        """Count an event that is stored, now or before."""
        if receipt.status == "duplicate":
            self.duplicates += 1
        else:
            self.stored += 1
            self.retried += receipt.attempts > 1

    def add_failed(self, error: Exception) -> None:
        """Count an event that is not stored, or whose outcome is unknown."""
        self.failed += 1
        self.other_content += isinstance(error, DuplicateEvent) and not error.same_content

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return monotonic() - self._began

    def summary(self) -> str:
        """The last line of a run."""
        other = f" ({self.other_content:,} with the id of another event)"
        return (
            f"{self.stored:,} stored ({self.retried:,} after retries, {self.conflicts:,} "
            f"conflicts), {self.duplicates:,} duplicates, {self.failed:,} failed"
            f"{other if self.other_content else ''} in {self.seconds:.1f} s"
        )

    def brief(self, share: float | None = None) -> str:
        """The progress, with the share of the input that was read if it is known."""
        rate = (self.stored + self.duplicates) / max(self.seconds, 0.001)
        read = "" if share is None else f"{share:.0%} read  "
        known = f"{self.duplicates:,} duplicates  " if self.duplicates else ""
        return (
            f"{read}{self.stored:,} stored  {known}{rate:,.0f}/s  "
            f"{self.conflicts:,} conflicts  {self.failed:,} failed"
        )
