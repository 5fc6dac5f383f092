"""The counts of a run of `write`, and the progress bar that shows them on standard error."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

from dsql_outbox.observability import Fact, WriteEnded
from dsql_outbox.outbox import DuplicateEvent, Receipt

if TYPE_CHECKING:
    from rich.table import Table

    from .inputs import Inputs

_BAR_WIDTH: Final = 30  # columns


@dataclass
class Tally:
    """Counts events by result.

    It is also a hook, because only facts tell of the conflicts of events that fail.
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

    def brief(self) -> str:
        """The text beside the progress bar."""
        rate = (self.stored + self.duplicates) / max(self.seconds, 0.001)
        known = f"{self.duplicates:,} duplicates  " if self.duplicates else ""
        return (
            f"{self.stored:,} stored  {known}{rate:,.0f}/s  "
            f"{self.conflicts:,} conflicts  {self.failed:,} failed"
        )


@contextmanager
def progress_bar(tally: Tally, inputs: "Inputs") -> Generator[Callable[[str], None] | None]:
    """Show a progress bar during the block, if standard error is a terminal.

    Yields a function that prints a line above the bar, or None without a bar.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - 60 ms, for terminals only
    from rich.live import Live  # noqa: PLC0415 - for terminals only

    total = inputs.size()
    console = Console(stderr=True)
    with Live(
        get_renderable=lambda: _draw(tally, inputs.bytes_read, total),
        console=console,
        transient=True,
    ):
        yield lambda line: console.out(line, highlight=False)


def _draw(tally: Tally, completed: int, total: int | None) -> "Table":
    from rich.progress_bar import ProgressBar  # noqa: PLC0415 - for terminals only
    from rich.table import Table  # noqa: PLC0415 - for terminals only

    bar = ProgressBar(total, completed, width=_BAR_WIDTH, pulse=total is None)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(bar, tally.brief())
    return grid
