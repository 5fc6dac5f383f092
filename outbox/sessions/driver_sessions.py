"""The connections of psycopg 3, asyncpg and psycopg2, as sessions of a caller."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import psycopg
from anyio import sleep
from psycopg.pq import PipelineStatus, TransactionStatus

from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Row,
    Statements,
    encoding_of,
    exchange,
    pipeline_inside,
    rows_of,
)
from dsql_outbox.outbox.errors import EventTooLarge, TransactionMisused
from dsql_outbox.outbox.failure import sqlstate_of
from dsql_outbox.outbox.settings import MAX_MESSAGE_BYTES
from dsql_outbox.outbox.unit_of_work.commit import require_transaction
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Invoke, Program, Query

from .caller_session import (
    CallerSession,
    Joining,
    named_parameters,
    numbered_parameters,
    text_of,
)

_BUSY_SECONDS: Final = 0.01
"""How long to wait before another try on a connection of asyncpg that is busy."""


class _DriverSession(CallerSession):
    """A connection of a driver."""

    def __init__(self, connection: Any, joining: Joining) -> None:
        super().__init__(joining)
        self._connection = connection

    def cut(self) -> None:
        end_now(self._connection)

    @property
    def role(self) -> str | None:
        return role_of(self._connection)


class PsycopgSession(_DriverSession):
    """A connection of psycopg 3, for threads or for tasks."""

    def join(self) -> Program[None]:
        require_transaction(self._connection, self.joining.method, self.joining.consequence)
        yield from ()

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        """Run the statements in one round trip.

        The cursor is psycopg's own, whatever row and cursor factories the connection has. Only
        cursors of psycopg work inside a pipeline of the caller. A text that the encoding of the
        connection lacks raises before the first statement is sent.
        """
        connection = self._connection
        *others, (query, values) = statements
        is_in_pipeline = connection.pgconn.pipeline_status != PipelineStatus.OFF
        if not others:
            if is_in_pipeline or not _prepares(connection):
                rows: Sequence[Row] = yield Query(connection, query.query, values)
                return rows
            sent = exchange(connection, query, query.encode(values, encoding_of(connection)))
            return rows_of((yield Exchange(connection, sent)))
        encoding = encoding_of(connection)
        encoded = [(query, query.encode(values, encoding)) for query, values in statements]
        if not is_in_pipeline:
            return rows_of((yield Exchange(connection, pipeline_inside(connection, encoded)))[-1])
        for other, its_values in others:
            yield Query(connection, other.query, its_values, has_rows=False)
        rows = yield Query(connection, query.query, values)
        return rows

    def send_failing(self) -> Program[bool]:
        connection = self._connection
        if connection.closed or connection.info.transaction_status is TransactionStatus.INERROR:
            return True
        try:
            require_transaction(connection, self.joining.method, "nothing would fail")
        except TransactionMisused:
            return True
        try:
            yield Query(connection, self.joining.failing.encode())
        except psycopg.Error as error:
            # A pipeline that an earlier statement has aborted sends no more of the transaction.
            return bool(error.sqlstate) or isinstance(error, psycopg.errors.PipelineAborted)
        return False


class AsyncpgSession(_DriverSession):
    """A connection of asyncpg, or one that its pool lends.

    asyncpg begins no transaction by itself. Its codecs of a caller may read a number as another
    type, which `int` accepts.
    """

    def join(self) -> Program[None]:
        if not self._connection.is_in_transaction():
            instead = "`async with connection.transaction():`"
            raise self.joining.alone("this connection has none", instead)
        yield from ()

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        rows: Sequence[Row] = ()
        for query, values in statements:
            text, parameters = text_of(query.text), numbered_parameters(query, values)
            rows = yield Invoke(partial(_fetch, text, parameters), self._connection)
        return rows

    def send_failing(self) -> Program[bool]:
        fail = partial(_fail_asyncpg, self.joining.failing)
        has_failed: bool = yield Invoke(fail, self._connection)
        return has_failed


class Psycopg2Session(_DriverSession):
    """A connection of psycopg2.

    The cursor is psycopg2's own, whatever cursor factory the connection has.
    """

    def join(self) -> Program[None]:
        if self._commits_alone:
            why = "this connection is in autocommit mode"
            raise self.joining.alone(why, "`connection.autocommit = False`")
        yield from ()

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        rows: Sequence[Row] = yield Invoke(partial(_run_psycopg2, statements), self._connection)
        return rows

    def send_failing(self) -> Program[bool]:
        if self._connection.closed or self._commits_alone:
            return True
        fail = partial(_fail_psycopg2, self.joining.failing)
        has_failed: bool = yield Invoke(fail, self._connection)
        return has_failed

    @property
    def _commits_alone(self) -> bool:
        idle = int(TransactionStatus.IDLE)
        connection = self._connection
        return bool(connection.autocommit) and connection.get_transaction_status() == idle


def _prepares(connection: Any) -> bool:
    """Return whether it is lent by a connection of the library, whose driver prepares nothing."""
    return getattr(connection, "is_lent", False) and connection.prepares


def role_of(connection: Any) -> str | None:
    """Return the role that a connection of a driver logged in as, or None if it is not known."""
    with suppress(Exception):  # such as of a proxy
        if hasattr(connection, "get_settings"):  # asyncpg, whose `info` is the user's own
            return str(connection.get_settings().session_authorization)
        return str(connection.info.user)
    return None


async def _fetch(text: str, parameters: Sequence[str | None], connection: Any) -> Sequence[Row]:
    return [tuple(row) for row in await connection.fetch(text, *parameters)]


def end_now(driver: Any) -> None:
    """End a connection of a driver. What waits for it gets the driver's error.

    The server rolls back, and the driver finds a lost connection at its next statement.
    """
    if hasattr(driver, "terminate"):
        driver.terminate()
        return
    # Its number may be another socket's as soon as libpq has closed it.
    with socket.socket(fileno=os.dup(driver.fileno())) as found:
        found.shutdown(socket.SHUT_RDWR)


async def _fail_asyncpg(failing: str, connection: Any) -> bool:
    """Send the statement that fails, after the statement of another task that runs there now.

    asyncpg does not wait for that one: it refuses ours, which the server has not seen then.
    """
    while connection.is_in_transaction() and not connection.is_closed():
        try:
            await connection.execute(failing)
        except Exception as error:  # noqa: BLE001 - the caller gets that of the method
            if sqlstate_of(error) is not None:
                return True
            await sleep(_BUSY_SECONDS)
    return True


def _run_psycopg2(statements: Statements, connection: Any) -> Sequence[Row]:
    with _cursor_of(connection) as cursor:
        for query, values in statements:
            cursor.execute(psycopg2_message(connection, query, values))
        rows: Sequence[Row] = cursor.fetchall()
        return rows


def psycopg2_message(
    connection: Any, query: NumberedQuery, values: Mapping[str, str | None]
) -> bytes:
    """Return a statement as `execute` sends it: with each value wherever the statement has it.

    Raises `EventTooLarge` over 8 MiB: Aurora DSQL would drop the connection without an error.
    """
    with _cursor_of(connection) as cursor:
        sent: bytes = cursor.mogrify(text_of(query.query), named_parameters(values))
    if len(sent) > MAX_MESSAGE_BYTES:
        raise EventTooLarge(len(sent), MAX_MESSAGE_BYTES, what="event as psycopg2 sends it")
    return sent


def _fail_psycopg2(failing: str, connection: Any) -> bool:
    with _cursor_of(connection) as cursor:
        try:
            cursor.execute(failing)
        except Exception as error:  # noqa: BLE001 - as above
            return sqlstate_of(error) is not None
    return False


def _cursor_of(connection: Any) -> Any:
    from psycopg2.extensions import cursor  # noqa: PLC0415 - the caller has imported it

    make: Callable[[Any], Any] = cursor
    return make(getattr(connection, "__wrapped__", connection))  # a tracer's proxy has it
