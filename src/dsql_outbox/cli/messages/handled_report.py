"""The report of the commands that retry or replay messages."""

from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Final, Literal

from dsql_outbox.cli.output import counted, json_line, say
from dsql_outbox.operations.replay import Replay
from dsql_outbox.operations.requeue import Handled

from .replay_summary import ReplaySummary

if TYPE_CHECKING:
    from uuid import UUID

_LEFT_ALONE: Final = {
    "waiting": "they wait in the outbox",
    "missing": "they do not exist",
    "unreadable": "their headers are not valid for a message; replay these events by their ids",
    "untaken": "the target does not take the types of their subjects",
}


class HandledReport:
    """Prints the results, a line per message if `listed`, and counts them by status.

    A dry run that is not `listed` prints a summary. `ids` are those of all results.
    """

    def __init__(
        self, done: Literal["retried", "replayed"], *, as_json: bool, listed: bool, dry_run: bool
    ) -> None:
        self._done = done
        self._as_json = as_json
        self._listed = listed
        self._summary = ReplaySummary() if dry_run and not listed else None
        self._counts: Counter[str] = Counter()
        self.ids: set[UUID] = set()

    @property
    def left_alone(self) -> int:
        """How many messages were selected but left alone."""
        return sum(self._counts[status] for status in _LEFT_ALONE)

    @property
    def total(self) -> int:
        """How many messages were selected."""
        return self._counts.total()

    async def all(self, told: AsyncGenerator[Handled] | Replay) -> None:
        """Print every result of `told`. Raises its errors."""
        async with aclosing(told):
            async for each in told:
                self._counts[each.status] += 1
                self.ids.add(each.event_id)
                if self._listed:
                    self._tell(each)
                if self._summary is not None and each.status == "planned":
                    self._summary.add(each)

    @contextmanager
    def summed(self) -> Generator[None]:
        """Print the totals on standard error after the block, even if it raises."""
        try:
            yield
        finally:
            if self._summary is not None:
                self._sum_up(self._summary)
            say(str(self), err=True)

    def __str__(self) -> str:
        """The totals so far."""
        counts = self._counts
        parts = [f"{counts[self._done]:,} {self._done}"]
        if counts["planned"]:
            parts = [f"{counted(counts['planned'], 'message')} would be {self._done}"]
        for status, why in _LEFT_ALONE.items():
            if counts[status]:
                parts.append(f"{counts[status]:,} left alone: {why}")
        return "; ".join(parts)

    def _sum_up(self, summary: ReplaySummary) -> None:
        if self._as_json:
            summary.print_json({status: self._counts[status] for status in _LEFT_ALONE})
        elif self._counts["planned"]:
            summary.print()

    def _tell(self, each: Handled) -> None:
        if self._as_json:
            json_line(each)
            return
        verb = "retry" if each.replay is None else f"replay {each.replay}"
        words = {self._done: verb, "planned": f"would be {verb}"}
        say(f"{each.event_id}  {words.get(each.status, each.status)}  {each.subject or '-'}")
