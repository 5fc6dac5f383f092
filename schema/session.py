"""One connection for statements and transactions, retried on conflict.

Operators work through it, and so does the relay: it reads, deletes and applies.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from anyio import move_on_after
from psycopg import capabilities, errors, generators, waiting
from psycopg.rows import AsyncRowFactory, kwargs_row, tuple_row
from psycopg.types.datetime import TimestamptzLoader

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import commands, loaded_rows, pipeline
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.failure import (
    CONFLICTS,
    OUTAGES,
    Moved,
    answers_commit,
    kind_of,
    sqlstate_of,
    tables_expected,
)
from dsql_outbox.outbox.interrupt import is_being_cancelled
from dsql_outbox.outbox.redaction import places_of
from dsql_outbox.outbox.unit_of_work.budget import OPERATOR
from dsql_outbox.outbox.unit_of_work.commit import GuardFailed, Guards, begin, commit, roll_back
from dsql_outbox.outbox.unit_of_work.function_run import FunctionRun
from dsql_outbox.outbox.unit_of_work.lasting import LastingConnection
from dsql_outbox.outbox.unit_of_work.loops import do_async, perform_async
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnTransaction

from .missing_rights import rights_expected
from .named_statements import guards, numbered_statement, statement
from .outbox_rows import RowId

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg.pq.abc import PGcancelConn

    from .roles import Duty

STATEMENT_TIMEOUT: Final = 10.0
"""Seconds that a statement of an operator may take, BEGIN and COMMIT included.

All of them read or change a bounded number of rows.
"""

CALL_TIMEOUT: Final = 10.0
"""Seconds that one call of a function of the user may take."""

SHARED_CALL_TIMEOUT: Final = 1.0
"""Seconds that it may take while messages of other subjects wait for it."""

_CANCEL_TIMEOUT: Final = 1.0
"""Seconds that a request to cancel a statement may take."""

T = TypeVar("T")


class FunctionFailed(Exception):
    """A function of the user failed its transaction, by `error`. Nothing is stored."""

    def __init__(self, error: Exception) -> None:
        super().__init__(_kind_text(error))
        self.error = error

    @property
    def report(self) -> str:
        """What is stored of it: the kind of the error, and the places that it came through.

        A line ``  FILE:LINE NAME`` each, from the user's function on, the innermost last.
        """
        return "\n".join([f"the function to apply raised {self}", *places_of(self.error)])


class CallTimedOut(TimeoutError):
    """A function of the user ran too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the function to apply ran for more than {seconds:g} s")


class CallCancelled(Exception):
    """A function of the user ended by a cancellation that nobody asked of the publisher."""

    def __init__(self) -> None:
        super().__init__("the function to apply awaited something that was cancelled")


def _kind_text(error: Exception) -> str:
    """Return the kind of an error. Its text may quote an event, unless it is the library's."""
    kind = type(error).__name__
    if isinstance(error, (TransactionMisused, CallTimedOut, CallCancelled)):
        return f"{kind}: {error}"
    return f"{kind} ({sqlstate})" if (sqlstate := sqlstate_of(error)) else kind


class Session:
    """One connection, opened at its first use and again after it was lost.

    A conflict is retried. A statement without an answer after `STATEMENT_TIMEOUT` raises
    the driver's `OperationalError`. All methods raise `SchemaError` if the tables are
    missing or outdated, and the driver's errors; that of a conflict only after the last try.
    Any other error closes the connection, as it may be one of this session or server.

    With `locks`, a transaction sees behind each lock what was committed until then, whatever the
    isolation level of the database is. Without, it has that level, as a user's function expects.
    With `read_only`, every statement runs in a READ ONLY transaction, and a statement whose
    connection was lost is run once more on a new one. With `needs_primary`, a server that says
    that it accepts no writes is left before a statement is sent to it: it may be a former
    primary, whose rows are out of date. With `duty`, a right that it needs and the role lacks
    is `MissingRight`.
    """

    def __init__(
        self,
        database: Database,
        *,
        locks: bool = False,
        read_only: bool = False,
        needs_primary: bool = False,
        duty: "Duty | None" = None,
    ) -> None:
        self._database = database
        self._duty: Duty | None = duty
        self._locks = locks
        self._read_only = read_only
        self._connection = LastingConnection(
            database, read_only=read_only, needs_primary=needs_primary
        )
        self._guards = guards(database.schema, "outbox_guard")
        self._turn = asyncio.Lock()  # a statement must not become part of another's transaction

    @property
    def schema(self) -> str:
        """The schema of the outbox tables."""
        return self._database.schema

    @property
    def accepts_writes(self) -> bool:
        """Whether the server of the open connection does not say that it accepts no writes."""
        current = self._connection.current
        return current is None or current.accepts_writes

    def do_not_wait_for_cluster(self) -> None:
        """Tell at once when a cluster is waking up: the work is repeated, and may be stopped."""
        self._connection.waits_for_cluster = False

    async def fetch_rows(
        self, name: str, parameters: Mapping[str, object], **literals: int
    ) -> Sequence[Sequence[Any]]:
        """Run one named statement as its own transaction. Returns its rows, if any."""
        rows, _ = await self._run(name, tuple_row, parameters, literals)
        return rows

    async def fetch_rows_by_index(
        self, name: str, parameters: Mapping[str, str]
    ) -> Sequence[Sequence[Any]]:
        """Run a named statement that runs often, as `fetch_rows` does. Returns its rows.

        It is prepared, and then it has one plan, which finds rows by an index however large the
        tables are. For that it takes settings, in the same round trip, which end with it. Without
        them it is planned each time: on a server that has none, or with ``prepare=False``.
        """
        query = numbered_statement(name, self._database.schema)
        settings = numbered_statement("plan_by_index", self._database.schema)

        async def run(connection: AsyncConnection) -> Sequence[Sequence[Any]] | None:
            if not (connection.prepares and connection.takes_local_settings):
                return None
            _give_time(connection)
            sent = [(settings, ()), (query, query.encode(parameters))]
            try:
                results = await connection.wait(pipeline(connection, sent))
            except errors.FeatureNotSupported:  # of the settings, if the text alone is answered
                connection.takes_local_settings = False
                return None
            return loaded_rows(connection, results[-1])

        found = await self._retry(run)
        return await self.fetch_rows(name, parameters) if found is None else found

    async def fetch(
        self, name: str, kind: Callable[..., T], parameters: Mapping[str, object], **literals: int
    ) -> Sequence[T]:
        """Run one named statement as its own transaction. Returns what `kind` makes of its rows.

        The columns are the arguments of `kind` by their names.
        """
        rows, _ = await self._run(name, kwargs_row(kind), parameters, literals)
        return rows

    async def execute(self, name: str, parameters: Mapping[str, object], **literals: int) -> int:
        """Run one named statement as its own transaction. Returns how many rows it changed."""
        _, count = await self._run(name, tuple_row, parameters, literals)
        return count

    async def transaction(
        self,
        work: Callable[["SessionTransaction"], Awaitable[T]],
        *,
        deleted: RowId | None = None,
    ) -> T:
        """Run `work` in a transaction; after a conflict or `Moved`, run all of it again.

        Each statement has its own time, so the transaction may take longer. Work that calls
        functions of the user deletes the row `deleted` first, which must still be deleted at
        the end. Raises `FunctionFailed` if the transaction failed because of a function.
        """

        async def run(connection: AsyncConnection) -> T:
            transaction = SessionTransaction(connection, self._database.schema)
            if self._locks:
                await connection.set_isolation_level(self._database.locks_at)
            ends = _Ends(connection, self._guards, deleted)
            _give_time(connection)
            try:
                await ends.begin()
                value = await work(transaction)
            except BaseException as error:
                if isinstance(error, Exception):  # in a cancellation nothing can be waited for
                    _give_time(connection)
                    await perform_async(roll_back(connection), do_async)
                # An error of the driver ended the statement. Any other may have left one running.
                if not isinstance(error, (psycopg.Error, Moved)):
                    await transaction.cancel_statement()
                raise
            _give_time(connection)
            await ends.commit()
            return value

        return await self._retry(run)

    async def snapshot(self, work: Callable[["SessionTransaction"], Awaitable[T]]) -> T:
        """Run `work` in a transaction whose statements all see the same snapshot."""

        async def run(connection: AsyncConnection) -> T:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            _give_time(connection)
            async with connection.transaction():
                return await work(SessionTransaction(connection, self._database.schema))

        return await self._retry(run)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _run(
        self,
        name: str,
        rows: AsyncRowFactory[T],
        parameters: Mapping[str, object] | None,
        literals: Mapping[str, int],
    ) -> tuple[Sequence[T], int]:
        """Run one named statement. Returns its rows, and how many it changed."""
        query = statement(name, self._database.schema, **literals)

        async def run(connection: AsyncConnection) -> tuple[Sequence[T], int]:
            _give_time(connection)
            async with self._bounds(connection):
                cursor = await _cursor(connection, rows).execute(query, parameters)
                return await cursor.fetchall() if cursor.description else [], cursor.rowcount

        return await self._retry(run)

    async def _retry(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        work = partial(self._connection.use, run)
        with (
            tables_expected(self._database.schema),
            rights_expected(self._database, self._duty),
        ):
            async with self._turn:
                try:
                    return await OPERATOR.run_async(work)
                except psycopg.OperationalError:
                    # A read can run again. Of anything else, nobody knows whether it was done.
                    if not (self._read_only and self._connection.was_lost):
                        raise
                return await OPERATOR.run_async(work)

    def _bounds(self, connection: AsyncConnection) -> AbstractAsyncContextManager[object]:
        """The transaction of one statement: of its own, or one that is READ ONLY."""
        return connection.transaction() if self._read_only else nullcontext()


class SessionTransaction:
    """The statements that the work of `Session.transaction` may run."""

    def __init__(self, connection: AsyncConnection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._canceller: PGcancelConn | None = None

    async def call(
        self, function: Callable[[AsyncConnection], Awaitable[None]], seconds: float
    ) -> None:
        """Call a function of the user with a handle of the connection, for `seconds` at most.

        Raises `FunctionFailed`, and the driver's error if the connection was lost or the
        transaction met a conflict.
        """
        self.can_be_cancelled()
        run = FunctionRun("apply")
        raised: Exception | None = None
        waited_at: TracebackType | None = None
        with run.lend(OwnTransaction(self._connection)) as handle:
            handle.deadline = None  # the scope limits all statements of the function together
            try:
                with move_on_after(seconds) as scope:
                    try:
                        await function(handle)
                    except asyncio.CancelledError as error:
                        waited_at = error.__traceback__
                        raise
                if scope.cancelled_caught:
                    raised = CallTimedOut(seconds).with_traceback(waited_at)
            except asyncio.CancelledError as error:
                if is_being_cancelled():
                    raise
                raised = CallCancelled().with_traceback(error.__traceback__)
            except Exception as error:  # noqa: BLE001 - the run decides whose error it is
                raised = error
        verdict = run.judge(raised)
        if verdict is None:
            return
        is_lost = self._connection.closed
        if not verdict.is_functions and (is_lost or kind_of(verdict.error) in CONFLICTS):
            raise verdict.error
        raise FunctionFailed(verdict.for_caller) from verdict.for_caller

    def can_be_cancelled(self) -> None:
        """Let the server end the statement in progress when the caller is cancelled.

        PostgreSQL notices a closed connection only at the end of the statement. Until then the
        transaction holds its locks, as on the row of a message, which could neither be applied nor
        buried, or on that of a lease. With a libpq before 17 nothing is cancelled.
        """
        if self._canceller is None and capabilities.has_cancel_safe():
            self._canceller = self._connection.pgconn.cancel_conn()

    async def cancel_statement(self) -> None:
        """Cancel the statement in progress, if its transaction could not be rolled back."""
        if self._canceller is None or self._connection.is_clean:
            return
        with move_on_after(_CANCEL_TIMEOUT, shield=True), suppress(psycopg.Error):
            self._canceller.start()
            await waiting.wait_conn_async(generators.cancel(self._canceller))

    async def fetch(
        self, name: str, kind: Callable[..., T], parameters: Mapping[str, object]
    ) -> Sequence[T]:
        """Run one named statement. Returns what `kind` makes of its rows."""
        return await (await self._run(name, kwargs_row(kind), parameters)).fetchall()

    async def fetch_rows(
        self, name: str, parameters: Mapping[str, object]
    ) -> Sequence[Sequence[Any]]:
        """Run one named statement. Returns its rows."""
        return await (await self._run(name, tuple_row, parameters)).fetchall()

    async def execute(self, name: str, parameters: Mapping[str, object]) -> int:
        """Run one named statement. Returns the number of changed rows."""
        return (await self._run(name, tuple_row, parameters)).rowcount

    async def change(self, name: str, parameters: Mapping[str, object], rows: int) -> None:
        """Run one named statement. Raises `Moved` unless it changes exactly `rows` rows."""
        if await self.execute(name, parameters) != rows:
            raise Moved

    async def _run(
        self, name: str, rows: AsyncRowFactory[T], parameters: Mapping[str, object]
    ) -> psycopg.AsyncCursor[T]:
        _give_time(self._connection)
        query = statement(name, self._schema)
        return await _cursor(self._connection, rows).execute(query, parameters)


class _Ends:
    """BEGIN and COMMIT of a transaction: with the mark and the guards of a run, if it has one."""

    def __init__(self, connection: AsyncConnection, guards: Guards, deleted: RowId | None) -> None:
        self._connection = connection
        self._guards = guards
        self._run = FunctionRun("apply")
        self._own = None if deleted is None else _key_of(deleted)

    async def begin(self) -> None:
        """Begin the transaction."""
        connection = self._connection
        send = partial(commands, connection)
        if self._own is None:
            await connection.wait(send([connection.begin]))
        else:
            await perform_async(begin(connection, self._guards, self._run.id, send), do_async)

    async def commit(self) -> None:
        """Commit, and look at the answer.

        After a function of the user, the server may refuse the COMMIT because of the function's
        changes, as for a deferred constraint, and a guard because the function has ended the
        transaction.
        """
        connection = self._connection
        if self._own is None:
            await perform_async(commit(connection), do_async)
            return
        statements = self._guards.commit_statements(connection, self._run.id, self._own)
        try:
            await perform_async(commit(connection, statements), do_async)
        except GuardFailed as failed:
            raise self._error_to_raise(self._run.judge_guard(failed.error).error) from None
        except psycopg.Error as error:
            raise self._error_to_raise(error) from error

    @staticmethod
    def _error_to_raise(error: Exception) -> Exception:
        is_ours = kind_of(error) in CONFLICTS | OUTAGES and not answers_commit(error)
        return error if is_ours else FunctionFailed(error)


def _key_of(row: RowId) -> dict[str, str]:
    return {"shard": str(row.shard), "position": str(row.position), "event_id": row.event_id}


_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class NearestTime(TimestamptzLoader):
    """Reads a time that Python cannot represent, such as infinity, as the nearest that it can.

    A program with the rights of a duty can store any time, and one row must not keep all others
    from being read. A time that is part of a key is read as text.
    """

    def load(self, data: Any) -> datetime:
        """Return the time as stored, or the first or the last one that UTC has in Python."""
        try:
            return super().load(data).astimezone(UTC)
        except (psycopg.DataError, OverflowError):
            # ``-infinity``, or a time of the year 1 that its zone moves before Python's first day.
            text = bytes(data)
            return (
                _EARLIEST if text.startswith((b"-", b"0001")) or text.endswith(b"BC") else _LATEST
            )


def _cursor(connection: AsyncConnection, rows: AsyncRowFactory[T]) -> psycopg.AsyncCursor[T]:
    """Return a cursor that can read every time; the statements of the caller read as ever."""
    cursor = connection.cursor(row_factory=rows)
    cursor.adapters.register_loader("timestamptz", NearestTime)
    return cursor


def _give_time(connection: AsyncConnection) -> None:
    """Let the next statement take `STATEMENT_TIMEOUT` from now."""
    connection.deadline = monotonic() + STATEMENT_TIMEOUT
