"""`write_many`: group many events into few transactions, and order their outcomes."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dsql_outbox.outbox.errors import InvalidEvent
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome, pend
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.chunks import TargetCounts, chunks

if TYPE_CHECKING:
    from uuid import UUID


class Many:
    """One call of `write_many`. Its `outcomes` are in the order of its events.

    Two events of one id cannot be in one transaction, so the second begins another
    transaction. If the first was stored, the second is a duplicate. If not, the second
    is stored. If the block raises, as by cancellation, the events that are not settled are
    abandoned.
    """

    def __init__(self, core: Core, gate: Gate, on_duplicate: OnDuplicate) -> None:
        self._core = core
        self._gate = gate
        self._on_duplicate: OnDuplicate = on_duplicate
        self._quiet = core.quiet_scopes()
        self._entries: list[Pending | InvalidEvent] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            for entry in self._entries:
                if isinstance(entry, Pending):
                    entry.abandon(error)

    def add(self, events: Iterable[EventSource], versions: Iterable[int | None]) -> None:
        """Add events, each with its expected version or None."""
        for event, version in zip(events, versions, strict=True):
            self._entries.append(self._entry(event, version))

    def batches(self) -> Iterator[list[Pending]]:
        """Yield the events of each transaction. Settle one batch before asking for the next."""
        together: dict[UUID, Pending] = {}
        for entry in self._entries:
            if isinstance(entry, InvalidEvent):
                continue
            if entry.id in together:
                yield from chunks(together.values(), self._targets)
                together = {}
            together[entry.id] = entry
        yield from chunks(together.values(), self._targets)

    def give_time(self, batch: Iterable[Pending], timeout: float | None) -> None:
        """Let the limit of the settings begin anew: a long list would not end within it."""
        self._gate.restart(timeout)
        for pending in batch:
            pending.journal.deadline = self._gate.deadline

    @property
    def outcomes(self) -> list[WriteOutcome]:
        """The outcome of each event. Valid after all batches are settled."""
        return [_outcome(entry) for entry in self._entries]

    def _targets(self) -> TargetCounts:
        return self._core.statements.target_counts

    def _entry(self, event: EventSource, version: int | None) -> Pending | InvalidEvent:
        try:
            return pend(
                self._core,
                event,
                self._gate,
                on_duplicate=self._on_duplicate,
                expected_version=version,
                quiet=self._quiet,
            )
        except InvalidEvent as error:
            return error


def _outcome(entry: Pending | InvalidEvent) -> WriteOutcome:
    if isinstance(entry, InvalidEvent):
        return entry
    assert entry.outcome is not None  # noqa: S101 - `settle` ends after every event is settled
    return entry.outcome
