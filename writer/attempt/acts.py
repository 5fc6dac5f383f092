"""The acts of one call of a writer, each on a connection that it takes and gives back. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.observability.facts import TransactionEnded, TransactionStarted, WritesStored
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Row,
    Rows,
    Statements,
    Values,
    exchange,
    pipeline,
    rows_of,
    tag_of,
)
from dsql_outbox.outbox.failure import NO_SUCH_FORM, DatabaseFailure, refuses_form
from dsql_outbox.outbox.unit_of_work.commit import require_committed, roll_back
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program, Query
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction, Sessions
from dsql_outbox.outbox.unit_of_work.work import on_connection
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Found, Stored, found_events
from dsql_outbox.writer.statement.write_statements import WriteStatements

from .pending import Pending, still_open

if TYPE_CHECKING:
    from dsql_outbox.writer.statement.parameters import PreparedEvent

T = TypeVar("T")

OwnConnection = Connection | AsyncConnection

_Encoded = Sequence[tuple[NumberedQuery, Values]]


class Acts:
    """Writes and looks up events for one call, whose `gate` each write passes.

    An act returns its result, or the meaning of its error. While the server works on a write of
    the single form, `next_batch` is asked for the events that are probably written next.
    """

    def __init__(
        self,
        core: Core,
        connections: Lender[Any],
        gate: Gate,
        next_batch: Callable[[], Sequence[Pending]] = list,
    ) -> None:
        self.gate = gate
        self._next_batch = next_batch
        self._ahead: tuple[Sequence[PreparedEvent], _Encoded] = (), ()
        self._core = core
        self._connections = connections

    def write(
        self, batch: Sequence[Pending], *, fresh: bool
    ) -> Program[Sequence[Stored] | DatabaseFailure]:
        """Write events in one transaction, on a connection that was never used if `fresh`.

        The result is what each event got, in order, of those that had not left when it was sent.
        """
        return on_connection(
            self._connections,
            partial(self._write, batch),
            self.gate,
            fresh=fresh,
            translate=self._core.translate,
        )

    def look_up(self, ids: Iterable[UUID]) -> Program[Mapping[UUID, Found] | DatabaseFailure]:
        """Read what is stored under these ids. An id that is absent may still be stored later."""
        return on_connection(
            self._connections,
            partial(find, self._core, ids),
            self.gate,
            translate=self._core.translate,
        )

    def run(
        self, transaction: Callable[[Any], Program[T]], *, fresh: bool
    ) -> Program[T | DatabaseFailure]:
        """Run a transaction with SQL of the caller, whose search path its connection has."""
        return on_connection(
            self._connections,
            transaction,
            self.gate,
            fresh=fresh,
            role_path=True,
            translate=self._core.translate,
        )

    def run_in(
        self, sessions: Sessions, transaction: Callable[[RunTransaction], Program[T]]
    ) -> Program[T | DatabaseFailure]:
        """Run a transaction with SQL of the caller in one of the caller's sessions."""
        if not self._core.statements.shards:
            learn = partial(learn_layout, self._core.statements)
            failure = yield from on_connection(
                self._connections, learn, self.gate, translate=self._core.translate
            )
            if failure is not None:
                return failure
        return (
            yield from on_connection(
                sessions, transaction, self.gate, translate=self._core.translate
            )
        )

    def prove_form(self) -> Program[bool]:
        """Return whether appends have the plain form from now on, after one was refused.

        The refusal decides nothing: it may be due to the session or the server of the caller.
        So a connection of the writer writes in the single form, and rolls back.
        """
        statements = self._core.statements
        if statements.may_choose and not statements.is_plain:
            prove = partial(_prove_single, statements)
            try:
                yield from self._connections.lend(prove, deadline=self.gate.deadline)
            except NO_SUCH_FORM:
                statements.is_plain = True
            except psycopg.Error:
                return False  # nobody knows, and the next refusal asks again
        return statements.is_plain

    def tell_transaction_end(
        self, batch: Sequence[Pending], failure: DatabaseFailure | None, started_ns: int
    ) -> None:
        """Report the end of a transaction of these events; of none, if it was a run of `transact`.

        It is one transaction, however many events it has.
        """
        if batch and batch[0].scopes.is_silent:
            return
        self._core.tell(
            TransactionEnded(
                started_ns=started_ns,
                ended_ns=time_ns(),
                server=self._core.server,
                pool=self._connections,
                error=type(failure.error).__name__ if failure else None,
                sqlstate=failure.sqlstate if failure else None,
            )
        )

    def tell_stored(self, batch: Sequence[Pending], started_ns: int, ended_ns: int) -> None:
        """Report what an attempt has stored to hooks that are not told of each event."""
        if batch and not batch[0].scopes.is_silent:
            journals = {pending.journal.began: pending.journal for pending in batch}
            calls = [journal.stored_call for journal in journals.values()]
            self._core.tell_stored(WritesStored(len(batch), started_ns, ended_ns, calls))

    def leave_lane(self) -> None:
        """Let other calls use the lane, now that an attempt did not settle all events.

        Only the transaction of several calls (`coalesce`) has a lane.
        """

    def _write(
        self, batch: Sequence[Pending], connection: OwnConnection
    ) -> Program[Sequence[Stored]]:
        """Write the events of a batch that are still open, in one round trip."""
        statements = self._core.statements
        yield from learn_layout(statements, connection)
        waiting = still_open(batch)
        if waiting and not waiting[0].scopes.is_silent:
            self._core.tell(TransactionStarted(len(waiting)))
        was_plain = statements.is_plain
        try:
            return (yield from self._send(batch, connection))
        except NO_SUCH_FORM as error:
            if was_plain or not statements.may_choose or not refuses_form(error):
                raise
            statements.is_plain = True  # some servers plan a statement that they cannot run
        # The server has refused the statement, so nothing is stored, and the other form may go.
        self.gate.sent = False
        for pending in waiting:
            pending.is_sent = False
        try:
            return (yield from self._send(batch, connection))
        except BaseException:
            statements.is_plain = False  # the refusal was no matter of the form, or nobody knows
            raise

    def _send(
        self, batch: Sequence[Pending], connection: OwnConnection
    ) -> Program[Sequence[Stored]]:
        """Send the events that are still open in the current form.

        The single form is one statement in autocommit. The plain form, and any form on a
        connection with an isolation level, goes from BEGIN to COMMIT.
        """
        statements = self._core.statements
        in_parts = statements.is_plain or connection.isolation_level is not None
        while going := still_open(batch):
            prepared = [pending.prepared for pending in going]
            if in_parts:
                encoded = _encoded(statements.transaction(prepared, connection.begin))
            elif prepared == self._ahead[0]:
                encoded = self._ahead[1]
            else:
                encoded = _encoded([statements.single(prepared)])
            if self.gate.admit("the write", connection, TransactionStatus.IDLE, going):
                break
        else:  # every call ended while the connection was waited for
            return ()
        if in_parts:
            rows = yield from _send_transaction(connection, encoded)
        else:
            sent = exchange(connection, *encoded[0], self._work_ahead)
            rows = rows_of((yield Exchange(connection, sent)))
        stored = statements.read_answer(prepared, rows)
        self.gate.wrote = True
        return stored

    def _work_ahead(self) -> None:
        """Encode the statement of the next batch."""
        prepared = [pending.prepared for pending in self._next_batch()]
        if prepared and prepared != self._ahead[0]:
            self._ahead = prepared, _encoded([self._core.statements.single(prepared)])


def _encoded(parts: Statements) -> _Encoded:
    return [(query, query.encode(values)) for query, values in parts]


def find(
    core: Core, ids: Iterable[UUID], connection: OwnConnection
) -> Program[Mapping[UUID, Found]]:
    """Read which of these events are stored."""
    rows = yield Query(connection, core.find, {"ids": array_literal(ids)})
    return found_events(rows)


def learn_layout(statements: WriteStatements, connection: OwnConnection) -> Program[None]:
    """Ask for the number of shards, and choose the form of a write if it is ``auto``.

    This is the first statement of a writer. Several first calls may ask at once, and get the
    same answer.
    """
    if statements.shards:
        return
    if statements.may_choose:
        try:
            results = yield Exchange(connection, pipeline(connection, _encoded(statements.probe)))
        except NO_SUCH_FORM:
            statements.is_plain = True
        else:
            statements.read_layout(rows_of(results[0]))
            return
    rows: Sequence[Row] = yield Query(connection, statements.layout)
    statements.read_layout(rows)


def _prove_single(statements: WriteStatements, connection: OwnConnection) -> Program[None]:
    proof = statements.proof(connection.begin)
    try:
        yield Exchange(connection, pipeline(connection, _encoded(proof)))
    except psycopg.Error:
        yield from roll_back(connection)
        raise


def _send_transaction(connection: OwnConnection, encoded: _Encoded) -> Program[Rows]:
    """Send a write from BEGIN to COMMIT in one round trip. Return its rows once it is committed."""
    try:
        results = yield Exchange(connection, pipeline(connection, encoded))
    except psycopg.Error:
        yield from roll_back(connection)
        raise
    require_committed(tag_of(results[-1]))
    return rows_of(results[-2])
