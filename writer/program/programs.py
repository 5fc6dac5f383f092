"""The programs of a writer: one for each of its methods. No I/O."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from dsql_outbox.outbox.arguments import require_seconds
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.exchange import encoding_of, pipeline_inside, rows_of
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.errors import TransactionMisused, WriterClosed
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.failure import NO_SUCH_FORM, FailureKind, kind_of
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.commit import require_transaction
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program, Query, TakeTurn
from dsql_outbox.outbox.unit_of_work.turns import EntityKey, Turn, Turns
from dsql_outbox.outbox.unit_of_work.work import settle
from dsql_outbox.writer.attempt.event_write import EventWrite
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome
from dsql_outbox.writer.core import Core, receipt_of
from dsql_outbox.writer.statement.answers import Stored, StoredEntity, entity_of
from dsql_outbox.writer.transact.append import Joined, explained
from dsql_outbox.writer.transact.call import Call, Run, require_outermost

from .attempts import Attempts, TurnActs, WriteActs, no_turn
from .call_arguments import (
    entity_key,
    listed_events,
    listed_versions,
    require_connection,
    require_on_duplicate,
    require_version,
)
from .foreign_connections import APPEND_FAILED
from .stream import EntityStream
from .write_many import Many

T = TypeVar("T")

_Own = Connection | AsyncConnection


class Programs(Attempts):
    """The programs of one writer. `callers` is the kind of connection that `append_to` takes."""

    def __init__(
        self,
        core: Core,
        connections: Lender[Any],
        callers: type[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]],
    ) -> None:
        super().__init__(core, connections)
        self.is_closed = False
        self._callers = callers
        self.begin_turns()
        call_in_children(self.begin_turns)

    def begin_turns(self) -> None:
        """Forget the calls that took turns: they will not end, as after a fork."""
        self._turns = Turns()

    def begin(self, method: str, timeout: float | None) -> Gate:
        """Begin a call of a method. Raises unless the call may begin here and now."""
        self.require_open()
        require_outermost(self.core, method)
        require_seconds("timeout", timeout)
        return Gate(self.core.settings.timeout if timeout is None else timeout)

    def require_open(self) -> None:
        """Raise `WriterClosed` after the writer was closed."""
        if self.is_closed:
            raise WriterClosed

    def write(
        self,
        event: EventSource,
        on_duplicate: OnDuplicate,
        expected_version: int | None,
        timeout: float | None,
    ) -> Program[Receipt]:
        """Perform `Writer.write`."""
        gate = self.begin("write", timeout)
        require_on_duplicate(on_duplicate)
        require_version(expected_version)
        pending = self.core.pend(
            event, gate, on_duplicate=on_duplicate, expected_version=expected_version
        )
        acts = TurnActs(self, gate, self._turns)
        try:
            with pending.scopes:
                if (yield from acts.follow(pending)):
                    yield from self.write_batch([pending], gate, acts)
                else:
                    pending.broken(no_turn())
        finally:
            acts.leave()
        return receipt_of(pending)

    def write_many(
        self,
        events: Iterable[EventSource],
        on_duplicate: OnDuplicate,
        expected_versions: Iterable[int | None] | None,
        timeout: float | None,
    ) -> Program[list[WriteOutcome]]:
        """Perform `Writer.write_many`."""
        gate = self.begin("write_many", timeout)
        require_on_duplicate(on_duplicate)
        listed = listed_events(events)
        versions = listed_versions(expected_versions, len(listed))
        with Many(self.core, gate, on_duplicate) as many:
            many.add(listed, versions)
            for batch in many.batches():
                if timeout is None:
                    many.give_time(batch, self.core.settings.timeout)
                yield from self.write_batch(batch, gate)
        return many.outcomes

    def write_batch(
        self, batch: Sequence[Pending], gate: Gate, acts: WriteActs | None = None
    ) -> Program[None]:
        """Write events together until each is settled."""
        yield from settle(EventWrite(batch, acts or WriteActs(self, gate)))
        yield from self.aside(gate)

    def call(
        self, gate: Gate, function: Callable[[Run[T], Any], Any], on_duplicate: OnDuplicate
    ) -> Call[T]:
        """Return a call of `transact` for a function of a run and its connection."""
        require_on_duplicate(on_duplicate)
        acts, run_once = WriteActs(self, gate), partial(self.run_once, gate)
        return Call(self.core, gate, acts, run_once, function, on_duplicate=on_duplicate)

    def transact(
        self, call: Call[Any], gate: Gate, entities: Collection[EntityKey] = ()
    ) -> Program[None]:
        """Run the function of a call until the call is settled, in the turn of its entities."""
        turn = Turn(entities, has_lost=lambda: call.conflicts > 0)
        try:
            if entities:
                yield from self._take(turn, call, gate)
            yield from settle(call)
        finally:
            self._turns.leave(turn)
        yield from self.aside(gate)

    def _take(self, turn: Turn, call: Call[Any], gate: Gate) -> Program[None]:
        """Wait for the turn of a call. It keeps the turn for all its runs, waits included."""
        try:
            came = yield TakeTurn(self._turns, turn, gate.deadline)
        except BaseException as error:
            call.abandon(error)
            raise
        if not came:
            call.broken(no_turn())

    def append(
        self, run: Run[Any], connection: _Own, event: EventSource, expected_version: int | None
    ) -> Program[Receipt]:
        """Perform `Transaction.append`."""
        require_version(expected_version)
        before = connection.info.transaction_status
        pending = run.append(event, expected_version, before)
        with run.appending(pending.id, before):
            was_plain = self.core.plain
            try:
                stored = yield from self._append(connection, pending)
            except NO_SUCH_FORM:
                run.is_refused = not was_plain
                raise
        return run.receipt(pending, stored)

    def append_to(
        self,
        connection: psycopg.BaseConnection[Any],
        event: EventSource,
        expected_version: int | None,
    ) -> Program[Receipt]:
        """Perform `Writer.append_to`."""
        self.require_open()
        require_version(expected_version)
        require_connection(connection, self._callers)
        require_transaction(connection, "append_to", "the event would be stored")
        joined = Joined(self.core, event, expected_version)
        with joined.scopes:
            if self.shards is None:
                with explained(self.core, joined.pending):
                    yield from self._connections.lend(self.require_shards)
            try:
                stored = yield from self._append(connection, joined.pending)
            except NO_SUCH_FORM:
                deadline = Gate(self.core.settings.timeout).deadline
                yield from self.proves_plain(deadline)  # for your next try
                raise
            except psycopg.Error as error:
                if kind_of(error) is not FailureKind.COLLISION:
                    raise
                with suppress(psycopg.Error):  # without a look-up, the driver's error is raised
                    find = partial(self.find, [joined.pending.id])
                    joined.refuse((yield from self._connections.lend(find)), error)
                raise
            return joined.receipt(stored)

    def fail(self, connection: Any) -> Program[None]:
        """Fail the caller's transaction after an error of `append_to`, if the server has not.

        A caller who swallows the error would otherwise commit the rows without their event.
        A ROLLBACK would not do: what the caller writes next would be committed alone.
        """
        kind: type[Any] = self._callers
        is_theirs = isinstance(connection, kind)
        if not is_theirs or connection.info.transaction_status is TransactionStatus.INERROR:
            return
        with suppress(psycopg.Error, TransactionMisused):  # no transaction is open, or it failed
            require_transaction(connection, "append_to", "nothing would fail")
            yield Query(connection, APPEND_FAILED.encode())

    def read_page(self, stream: EntityStream) -> Program[None]:
        """Read the next page of a stream."""
        self.require_open()
        archived = stream.take((yield from self.read(*stream.query)))
        if archived is not None:
            stream.take_archived((yield from self.read(*archived)))

    def entity(self, entity_type: str, entity_id: str) -> Program[StoredEntity | None]:
        """Perform `Writer.entity`."""
        self.require_open()
        key = entity_key(entity_type, entity_id)
        return entity_of(key, (yield from self.read(self.core.entity, key)))

    def entity_inside(
        self, run: Run[Any], connection: _Own, entity_type: str, entity_id: str
    ) -> Program[StoredEntity | None]:
        """Perform `Transaction.entity`."""
        run.require_running("entity", connection.info.transaction_status)
        key = entity_key(entity_type, entity_id)
        return entity_of(key, (yield Query(connection, self.core.entity, key)))

    def _append(self, connection: Any, pending: Pending) -> Program[Stored]:
        """Write the event in the connection's transaction, in one round trip.

        The cursor is psycopg's own, whatever row and cursor factories the connection has.
        """
        with explained(self.core, pending):
            rows = yield from self._rows_of_append(connection, pending)
        return self.core.stored([pending], rows)[0]

    def _rows_of_append(self, connection: Any, pending: Pending) -> Program[Any]:
        """Send the statements of an append together.

        Only cursors of psycopg work inside a pipeline of the caller. A text that the encoding
        of the connection lacks raises before the first statement is sent.
        """
        assert self.shards is not None  # noqa: S101 - read before the first append
        statements = self.core.statements([pending], self.shards)
        *others, (query, values) = statements
        if not others:
            return (yield Query(connection, query.query, values))
        encoding = encoding_of(connection)
        encoded = [(query, query.encode(values, encoding)) for query, values in statements]
        if connection.pgconn.pipeline_status == PipelineStatus.OFF:
            return rows_of((yield Exchange(connection, pipeline_inside(connection, encoded)))[-1])
        for other, its_values in others:
            yield Query(connection, other.query, its_values, has_rows=False)
        return (yield Query(connection, query.query, values))
