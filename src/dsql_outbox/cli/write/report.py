"""The report of `write`: one JSON object per event and line, as soon as a result is known."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final
from uuid import UUID

import anyio
import msgspec

from dsql_outbox.cli.output import counted
from dsql_outbox.observability.shown_text import visible_json
from dsql_outbox.outbox.errors import DuplicateEvent, InvalidEvent
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.redaction import error_line

from .descriptors import write_all
from .inputs import Line


@dataclass
class Tally:
    """Counts events by result. `conflicts` are those of stored events."""

    stored: int = 0
    retried: int = 0
    duplicates: int = 0
    failed: int = 0
    invalid: int = 0
    """How many of the failed lines are no valid events."""
    other_content: int = 0
    """How many of the failed events have the id of a different stored event."""
    conflicts: int = 0
    _began: float = field(default_factory=monotonic)

    def add(self, receipt: Receipt) -> None:
        """Count an event that is stored, now or before."""
        self.conflicts += receipt.conflicts
        if receipt.status == "duplicate":
            self.duplicates += 1
        else:
            self.stored += 1
            self.retried += receipt.attempts > 1

    def add_failed(self, error: Exception) -> None:
        """Count an event that is not stored, or whose outcome is unknown."""
        self.failed += 1
        self.invalid += isinstance(error, InvalidEvent)
        self.other_content += isinstance(error, DuplicateEvent) and not error.same_content

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return monotonic() - self._began

    def summary(self) -> str:
        """The last line of a run."""
        other = f" ({self.other_content:,} with the id of another event)"
        return (
            f"{self.stored:,} stored ({self.retried:,} after retries, "
            f"{counted(self.conflicts, 'conflict')}), {counted(self.duplicates, 'duplicate')}, "
            f"{self.failed:,} failed"
            f"{other if self.other_content else ''} in {self.seconds:.1f} s"
        )

    def hint(self) -> str | None:
        """Return how to make lines of an input of which no line is an event."""
        if not self.invalid or self.invalid < self.failed or self.stored or self.duplicates:
            return None
        return (
            "no line is an event: write one event per line, as `jq -c .` makes them of documents, "
            "and `jq -c '.[]'` of an array"
        )

    def brief(self, share: float | None) -> str:
        """The progress, with the share of the input that was read if it is known."""
        rate = (self.stored + self.duplicates) / max(self.seconds, 0.001)
        read = "" if share is None else f"{share:.0%} read  "
        known = f"{counted(self.duplicates, 'duplicate')}  " if self.duplicates else ""
        return (
            f"{read}{self.stored:,} stored  {known}{rate:,.0f}/s  "
            f"{counted(self.conflicts, 'conflict')}  {self.failed:,} failed"
        )


STDOUT: Final = 1
STDERR: Final = 2

_encoder: Final = msgspec.json.Encoder()


class FailureLine(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An event that is not stored, or an input that cannot be read any further.

    `error` is the name of the exception's type. `line` is the number of the event's line
    in `input`, from 1. `same_content` is given only for a `DuplicateEvent`: whether the
    event stored under this id has the same content.
    """

    event_id: UUID | None
    error: str
    message: str
    input: str
    line: int
    same_content: bool | None = None


class Reporter:
    """Counts and prints receipts (on standard output) and failures (on standard error).

    `print_above` prints a line on a terminal that shows the progress.
    """

    def __init__(self, tally: Tally, print_above: Callable[[str], None] | None) -> None:
        self._tally = tally
        self._print_above = print_above
        self._locks = {STDOUT: anyio.Lock(), STDERR: anyio.Lock()}

    async def stored(self, receipts: Sequence[Receipt]) -> None:
        """Report stored events. Raises `OSError` if standard output cannot be written to."""
        for receipt in receipts:
            self._tally.add(receipt)
        await self._print(STDOUT, receipts)

    async def failed(self, line: Line, event_id: UUID | None, error: Exception) -> None:
        """Report an event that is not stored, or whose outcome is unknown.

        Raises `OSError` if standard error cannot be written to.
        """
        self._tally.add_failed(error)
        same = error.same_content if isinstance(error, DuplicateEvent) else None
        failure = FailureLine(
            event_id, type(error).__name__, error_line(error), line.input, line.number, same
        )
        await self._print(STDERR, [failure])

    async def _print(self, descriptor: int, values: Sequence[msgspec.Struct]) -> None:
        lines = visible_json(bytes(_encoder.encode_lines(values)))
        if self._print_above is not None and os.isatty(descriptor):
            self._print_above(lines.decode().rstrip("\n"))
            return
        async with self._locks[descriptor]:  # so that lines of two workers never mix
            await write_all(descriptor, lines)
