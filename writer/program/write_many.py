"""`write_many`: group many events into few transactions, and order their outcomes."""

from collections.abc import Iterable, Iterator
from time import perf_counter
from types import TracebackType
from typing import Self

from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome, pend
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.chunks import TargetCounts, chunks


class Many:
    """One call of `write_many`. Its `outcomes` are in the order of its events.

    An event is checked and prepared when its transaction is cut: before that is sent, or by
    `look_ahead` while the server works on the one before. If the block raises, as by
    cancellation, the events that are not settled are abandoned.
    """

    def __init__(
        self,
        core: Core,
        gate: Gate,
        on_duplicate: OnDuplicate,
        events: Iterable[EventSource],
        versions: Iterable[int | None],
    ) -> None:
        self._core = core
        self._gate = gate
        self._on_duplicate: OnDuplicate = on_duplicate
        self._quiet = core.quiet_scopes()
        self._entries: list[Pending | Exception] = []
        self._chunks = chunks(self._pend(events, versions), self._targets)
        self._next: list[Pending] = []
        self._next_targets = self._targets()

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

    def batches(self) -> Iterator[list[Pending]]:
        """Yield the events of each transaction. Settle one batch before asking for the next."""
        while True:
            batch, self._next = self.look_ahead(), []
            if not batch:
                return
            if self._next_targets == self._targets():
                yield batch
            else:  # the answer to the batch before has changed them
                yield from chunks(batch, self._targets)

    def look_ahead(self) -> list[Pending]:
        """Cut the next batch, unless that was done, and return it."""
        if not self._next:
            self._next = next(self._chunks, list[Pending]())
            self._next_targets = self._targets()
            began = perf_counter()
            for pending in self._next:
                pending.journal.began = began
        return self._next

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

    def _pend(
        self, events: Iterable[EventSource], versions: Iterable[int | None]
    ) -> Iterator[Pending]:
        for event, version in zip(events, versions, strict=True):
            entry = self._entry(event, version)
            self._entries.append(entry)
            if isinstance(entry, Pending):
                yield entry

    def _entry(self, event: EventSource, version: int | None) -> Pending | Exception:
        try:
            return pend(
                self._core,
                event,
                self._gate,
                on_duplicate=self._on_duplicate,
                expected_version=version,
                quiet=self._quiet,
            )
        except Exception as error:
            if is_interrupt(error):
                raise
            return error  # as `write` would have raised it


def _outcome(entry: Pending | Exception) -> WriteOutcome:
    if isinstance(entry, Exception):
        return entry
    assert entry.outcome is not None  # noqa: S101 - `settle` ends after every event is settled
    return entry.outcome
