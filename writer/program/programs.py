"""The programs of a writer: one for each of its methods. No I/O."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from dsql_outbox.outbox.arguments import require_seconds
from dsql_outbox.outbox.database.exchange import encoding_of, pipeline_inside, rows_of
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.errors import TransactionMisused, WriterClosed
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.failure import NO_SUCH_FORM, FailureKind, kind_of
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.budget import Spending, retry
from dsql_outbox.outbox.unit_of_work.commit import require_transaction
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program, Query
from dsql_outbox.outbox.unit_of_work.turns import EntityKey, Turns
from dsql_outbox.outbox.unit_of_work.work import settle
from dsql_outbox.writer.attempt.acts import Acts, OwnConnection, find, learn_layout
from dsql_outbox.writer.attempt.entity_turn import EntityTurn, no_turn
from dsql_outbox.writer.attempt.event_write import EventWrite
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome, pend
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Row, Stored, StoredEntity, entity_of
from dsql_outbox.writer.statement.parameters import PreparedEvent
from dsql_outbox.writer.transact.append import Joined, translate_errors
from dsql_outbox.writer.transact.call import Call, Run, require_outermost

from .call_arguments import (
    entity_key,
    listed_events,
    listed_versions,
    require_connection,
    require_on_duplicate,
    require_version,
)
from .foreign_connections import APPEND_FAILED
from .housekeeping import Housekeeping
from .stream import EntityStream
from .write_many import Many

T = TypeVar("T")


class Programs:
    """The programs of one writer. `callers` is the kind of connection that `append_to` takes."""

    def __init__(
        self,
        core: Core,
        connections: Lender[Any],
        callers: type[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]],
    ) -> None:
        self._core = core
        self.is_closed = False
        self._connections = connections
        self.housekeeping = Housekeeping(core, connections)
        self._callers = callers
        self.forget_turns()
        call_in_children(self.forget_turns)

    def forget_turns(self) -> None:
        """Forget the calls that took turns: they will not end, as after a fork."""
        self._turns = Turns()

    def open_gate(self, method: str, timeout: float | None) -> Gate:
        """Begin a call of a method. Raises unless the call may begin here and now."""
        self.require_open()
        require_outermost(self._core, method)
        require_seconds("timeout", timeout)
        return Gate(self._core.settings.timeout if timeout is None else timeout)

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
        gate = self.open_gate("write", timeout)
        require_on_duplicate(on_duplicate)
        require_version(expected_version)
        pending = pend(
            self._core, event, gate, on_duplicate=on_duplicate, expected_version=expected_version
        )
        turn = EntityTurn(self._turns, gate)
        # With a counted budget the schedule is the user's, so nobody takes turns.
        takes_turns = self._core.settings.max_retries is None
        try:
            with pending.scopes:
                if takes_turns and self._turns.has_conflicted_call(pending.entities):
                    yield from _take(turn, pending.entities, pending)
                acts = Acts(self._core, self._connections, gate)
                yield from self.write_batch([pending], acts, turn if takes_turns else None)
        finally:
            turn.leave()
        return pending.receipt()

    def write_many(
        self,
        events: Iterable[EventSource],
        on_duplicate: OnDuplicate,
        expected_versions: Iterable[int | None] | None,
        timeout: float | None,
    ) -> Program[list[WriteOutcome]]:
        """Perform `Writer.write_many`."""
        gate = self.open_gate("write_many", timeout)
        require_on_duplicate(on_duplicate)
        listed = listed_events(events)
        versions = listed_versions(expected_versions, len(listed))
        with Many(self._core, gate, on_duplicate) as many:
            many.add(listed, versions)
            acts = Acts(self._core, self._connections, gate)
            for batch in many.batches():
                if timeout is None:
                    many.give_time(batch, self._core.settings.timeout)
                yield from self.write_batch(batch, acts)
        return many.outcomes

    def write_batch(
        self, batch: Sequence[Pending], acts: Acts, turn: EntityTurn | None = None
    ) -> Program[None]:
        """Write events together until each is settled. A `write` has a `turn`."""
        yield from settle(EventWrite(batch, acts, turn))
        yield from self.housekeeping.after(acts.gate)

    def call(
        self, gate: Gate, function: Callable[[Run[T], Any], Any], on_duplicate: OnDuplicate
    ) -> Call[T]:
        """Return a call of `transact` for a function of a run and its connection."""
        require_on_duplicate(on_duplicate)
        acts = Acts(self._core, self._connections, gate)
        return Call(self._core, acts, function, on_duplicate=on_duplicate)

    def transact(
        self, call: Call[Any], gate: Gate, entities: Collection[EntityKey] = ()
    ) -> Program[None]:
        """Run the function of a call until the call is settled, in the turn of its entities."""
        turn = EntityTurn(self._turns, gate, has_conflicted=lambda: call.conflicts > 0)
        try:
            if entities:
                yield from _take(turn, entities, call)
            yield from settle(call)
        finally:
            turn.leave()
        yield from self.housekeeping.after(gate)

    def append(
        self,
        run: Run[Any],
        connection: OwnConnection,
        event: EventSource,
        expected_version: int | None,
    ) -> Program[Receipt]:
        """Perform `Transaction.append`."""
        require_version(expected_version)
        before = connection.info.transaction_status
        prepared = run.prepare_append(event, expected_version, before)
        with run.record_append(prepared.event.id, before):
            was_plain = self._core.statements.is_plain
            try:
                stored = yield from self._append(connection, prepared)
            except NO_SUCH_FORM:
                run.is_refused = not was_plain
                raise
        return run.receipt(prepared, stored)

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
        joined = Joined(self._core, event, expected_version)
        with joined.scopes:
            with translate_errors(self._core, joined.prepared):
                if not self._core.statements.shards:
                    learn = partial(learn_layout, self._core.statements)
                    yield from self._connections.lend(learn)
            try:
                stored = yield from self._append(connection, joined.prepared)
            except NO_SUCH_FORM:
                gate = Gate(self._core.settings.timeout)
                yield from Acts(self._core, self._connections, gate).prove_form()  # for a next try
                raise
            except psycopg.Error as error:
                if kind_of(error) is not FailureKind.COLLISION:
                    raise
                with suppress(psycopg.Error):  # without a look-up, the driver's error is raised
                    look_up = partial(find, self._core, [joined.prepared.event.id])
                    joined.refuse((yield from self._connections.lend(look_up)), error)
                raise
            return joined.receipt(stored)

    def fail_transaction(self, connection: Any) -> Program[None]:
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
        archived = stream.take((yield from self._read(*stream.query)))
        if archived is not None:
            stream.take_archived((yield from self._read(*archived)))

    def entity(self, entity_type: str, entity_id: str) -> Program[StoredEntity | None]:
        """Perform `Writer.entity`."""
        self.require_open()
        key = entity_key(entity_type, entity_id)
        return entity_of(key, (yield from self._read(self._core.entity, key)))

    def entity_inside(
        self, run: Run[Any], connection: OwnConnection, entity_type: str, entity_id: str
    ) -> Program[StoredEntity | None]:
        """Perform `Transaction.entity`."""
        run.require_running("entity", connection.info.transaction_status)
        key = entity_key(entity_type, entity_id)
        return entity_of(key, (yield Query(connection, self._core.entity, key)))

    def _read(self, query: bytes, parameters: Mapping[str, object]) -> Program[Sequence[Row]]:
        """Return the rows of a query, which is retried as a write is. It is never in doubt."""
        is_fresh = chain([False], repeat(self._core.fresh_retries))  # of each attempt
        deadline = Gate(self._core.settings.timeout).deadline

        def ask(connection: OwnConnection) -> Program[Sequence[Row]]:
            rows: Sequence[Row] = yield Query(connection, query, parameters)
            return rows

        def attempt() -> Program[Sequence[Row]]:
            return self._connections.lend(ask, fresh=next(is_fresh), deadline=deadline)

        try:
            return (yield from retry(attempt, Spending(self._core.budgets, deadline)))
        except Exception as error:
            translated = self._core.translate(error)
            if translated is error:
                raise
            raise translated from error

    def _append(self, connection: Any, prepared: PreparedEvent) -> Program[Stored]:
        """Write the event in the connection's transaction, in one round trip.

        The cursor is psycopg's own, whatever row and cursor factories the connection has.
        """
        with translate_errors(self._core, prepared):
            rows = yield from self._rows_of_append(connection, prepared)
        return self._core.statements.read_answer([prepared], rows)[0]

    def _rows_of_append(self, connection: Any, prepared: PreparedEvent) -> Program[Any]:
        """Send the statements of an append together.

        Only cursors of psycopg work inside a pipeline of the caller. A text that the encoding
        of the connection lacks raises before the first statement is sent.
        """
        statements = self._core.statements.inside([prepared])
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


def _take(
    turn: EntityTurn, entities: Collection[EntityKey], call: Pending | Call[Any]
) -> Program[None]:
    """Wait for the turn of a call before its first attempt. Settle it if no turn comes in time."""
    try:
        came = yield from turn.take(entities)
    except BaseException as error:  # no attempt has begun that would report it
        call.abandon(error)
        raise
    if not came:
        call.fail(no_turn())
