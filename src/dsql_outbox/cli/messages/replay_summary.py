"""The summary of a dry run: how many events per type, topic and shard, and of which time."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dsql_outbox.cli.output import aligned
from dsql_outbox.operations.requeue import MessageResult

if TYPE_CHECKING:
    from datetime import datetime

_SHOWN: Final = 20


class ReplaySummary:
    """Counts the events that a run would send."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {
            "type": Counter(),
            "topic": Counter(),
            "shard": Counter(),
        }
        self._total = 0
        self._first: datetime | None = None
        self._last: datetime | None = None

    def add(self, each: MessageResult) -> None:
        """Count an event that would be replayed."""
        self._total += 1
        for name, counter in self._counts.items():
            counter[str(getattr(each, name))] += 1
        if each.at is not None:
            self._first = min(self._first or each.at, each.at)
            self._last = max(self._last or each.at, each.at)

    def print(self) -> None:
        """Print a table, with the largest counts of each kind."""
        if self._total:
            aligned(list(self._rows()))
        if self._first is not None and self._last is not None:
            times = (("first", self._first), ("last", self._last))
            aligned([(name, at.isoformat(sep=" ")) for name, at in times])

    def counts(self, left_alone: dict[str, int]) -> object:
        """All counts, as one object."""
        counts = {f"{name}s": dict(counter.most_common()) for name, counter in self._counts.items()}
        times = {"first": self._first, "last": self._last}
        return {"events": self._total, "leftAlone": left_alone, **counts, **times}

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, counter in self._counts.items():
            for value, count in counter.most_common(_SHOWN):
                yield name, value, f"{count:,}"
            rest = counter.total() - sum(count for _, count in counter.most_common(_SHOWN))
            if rest:
                yield name, f"{len(counter) - _SHOWN} others", f"{rest:,}"
