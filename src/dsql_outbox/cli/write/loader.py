"""One run of `write`: reads lines, stores their events in order, and knows where to resume."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import anyio
import psycopg

from dsql_outbox.outbox.errors import InvalidEvent, MissingRight, OutboxError, SchemaError
from dsql_outbox.outbox.event.event_parser import ParsedEvent, parse_event
from dsql_outbox.outbox.failure import FailureKind, is_unreachable, kind_of
from dsql_outbox.outbox.receipt import Receipt

from .inputs import Inputs, Line, Unreadable
from .report import Reporter

WriteOutcome = Receipt | Exception


class Loader:
    """One run over all inputs; `stop` ends it in order, cancellation immediately.

    `write` must behave as `AsyncWriter.write_many`; each call gets at most `batch`
    events. `lasting_error` is set if the run ended because the tables or a right are missing,
    and `is_unreachable` if it ended because the database stayed out of reach.
    """

    def __init__(
        self,
        write: Callable[[Sequence[ParsedEvent]], Awaitable[Sequence[WriteOutcome]]],
        inputs: Inputs,
        report: Reporter,
        *,
        batch: int,
    ) -> None:
        self._write = write
        self._batch = batch
        self._inputs = inputs
        self._report = report
        self._reading = anyio.CancelScope()
        self._stopped = False
        self._hopeless = False
        self._problem = ""
        self._last: Line | None = None
        self._unsettled: Sequence[Line] = ()
        """The lines that were read and have no outcome yet, in order."""
        self.lasting_error: SchemaError | MissingRight | None = None
        self.is_unreachable = False

    async def run(self) -> None:
        """Store all events, or the ones that were read before `stop` was called."""
        try:
            async with aclosing(self._inputs.lines()) as parts:
                while (lines := await self._next(parts)) is not None:
                    self._unsettled = lines
                    while self._unsettled and not self._hopeless:
                        await self._store(self._unsettled[: self._batch])
        except Unreadable as error:
            self.stop()
            await self._tell(self._report.failed(error.line, None, error.cause))

    def stop(self) -> None:
        """Stop reading; events that were read are still stored."""
        self._stopped = True
        self._reading.cancel()

    def stop_line(self) -> str | None:
        """Where and why the run ended early; None if it read all inputs."""
        why = f": {self._problem}" if self._problem else ""
        if self._unsettled:
            where = _place(self._unsettled[0])
            return f"stopped{why}; write again from {where}, with --on-duplicate return"
        if not self._stopped:
            return None
        if self._last is None:
            return f"stopped before the first line{why}"
        return f"stopped after {_place(self._last)}{why}"

    async def _next(self, parts: AsyncIterator[Sequence[Line]]) -> Sequence[Line] | None:
        """The next lines; None at the end, and when `stop` is called."""
        if not self._stopped:
            with anyio.CancelScope() as self._reading:
                return await anext(parts, None)
        return None

    async def _store(self, lines: Sequence[Line]) -> None:
        """Store the events of these lines, which are the first of the unsettled ones."""
        parsed = [(line, _parsed(line)) for line in lines]
        events = [event for _, event in parsed if isinstance(event, ParsedEvent)]
        outcomes = iter(await self._write(events) if events else ())
        results = [
            (line, next(outcomes) if isinstance(event, ParsedEvent) else event)
            for line, event in parsed
        ]
        receipts = [result for _, result in results if isinstance(result, Receipt)]
        if receipts:
            await self._tell(self._report.stored(receipts))
        open_lines = [
            line
            for line, result in results
            if not (isinstance(result, Receipt) or await self._is_settled(line, result))
        ]
        self._last = lines[-1]
        self._unsettled = [*open_lines, *self._unsettled[len(lines) :]]

    async def _is_settled(self, line: Line, error: Exception) -> bool:
        """Report an event that is not stored; False if it is worth writing again."""
        if isinstance(error, (SchemaError, MissingRight)):
            self.lasting_error = error
            missing = "a right is" if isinstance(error, MissingRight) else "the tables are"
            self._give_up(f"{missing} missing")
            return False
        if not isinstance(error, (OutboxError, psycopg.Error)):
            raise error
        await self._tell(self._report.failed(line, line.event_id(), error))
        if is_unreachable(error):
            self.is_unreachable = True
            is_read_only = kind_of(error) is FailureKind.READ_ONLY
            fault = "accepts no writes" if is_read_only else "cannot be reached"
            self._give_up(f"the database {fault}")
            return False
        return True

    def _give_up(self, problem: str) -> None:
        """Stop storing: other events would fail for the same reason, so they stay unsettled."""
        self._hopeless = True
        self._stop_for(problem)

    async def _tell(self, told: Awaitable[None]) -> None:
        try:
            await told
        except OSError as error:
            self._stop_for(f"cannot write the result: {error.strerror}")

    def _stop_for(self, problem: str) -> None:
        self._problem = self._problem or problem
        self.stop()


def _parsed(line: Line) -> ParsedEvent | InvalidEvent:
    try:
        return parse_event(line.data)
    except InvalidEvent as error:
        return error


def _place(line: Line) -> str:
    return f"line {line.number:,} of {line.input}"
