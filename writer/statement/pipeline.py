"""Run a whole transaction in one psycopg pipeline: one round trip.

With BEGIN and COMMIT of its own: a pipeline's implicit transaction is committed
by its Sync, and psycopg loses the SQLSTATE of an error that comes there. Rows
are believed only when the pipeline is closed and the COMMIT has answered COMMIT.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from dsql_outbox.outbox import AsyncConnection, Connection

from .plain import Statements

Rows = Sequence[Sequence[Any]]


def run(connection: Connection, transaction: Statements) -> Rows:
    """The rows of the statement before the COMMIT; raises the first error of any."""
    cursors, first = _sent(connection, transaction)
    if _is_aborted(connection):
        with suppress(psycopg.Error):
            connection.rollback()
    first.check()
    check_committed(cursors[-1].statusmessage)
    return cursors[-2].fetchall()


async def run_async(connection: AsyncConnection, transaction: Statements) -> Rows:
    """The rows of the statement before the COMMIT; raises the first error of any."""
    cursors, first = await _sent_async(connection, transaction)
    if _is_aborted(connection):
        with suppress(psycopg.Error):
            await connection.rollback()
    first.check()
    check_committed(cursors[-1].statusmessage)
    return await cursors[-2].fetchall()


def run_inside(connection: psycopg.Connection[Any], statements: Statements) -> Rows:
    """The rows of the last statement, in a transaction that stays open; raises the first error."""
    cursors, first = _sent(connection, statements)
    first.check()
    return cursors[-1].fetchall()


async def run_inside_async(
    connection: psycopg.AsyncConnection[Any], statements: Statements
) -> Rows:
    """The rows of the last statement, in a transaction that stays open; raises the first error."""
    cursors, first = await _sent_async(connection, statements)
    first.check()
    return await cursors[-1].fetchall()


def run_first(connection: Connection, statements: Statements) -> Rows:
    """The rows of the first statement; raises the first error. They are no transaction."""
    cursors, first = _sent(connection, statements)
    first.check()
    return cursors[0].fetchall()


async def run_first_async(connection: AsyncConnection, statements: Statements) -> Rows:
    """The rows of the first statement; raises the first error. They are no transaction."""
    cursors, first = await _sent_async(connection, statements)
    first.check()
    return await cursors[0].fetchall()


def _sent(
    connection: psycopg.Connection[Any], statements: Statements
) -> "tuple[list[psycopg.Cursor[Any]], _FirstError]":
    """Run them in one pipeline, whatever factories the connection has."""
    cursors: list[psycopg.Cursor[Any]] = []
    first = _FirstError()
    with first, connection.pipeline(), first:
        for each in statements:
            cursor = psycopg.Cursor(connection, row_factory=tuple_row)
            cursors.append(cursor.execute(*each, prepare=True))
    return cursors, first


async def _sent_async(
    connection: psycopg.AsyncConnection[Any], statements: Statements
) -> "tuple[list[psycopg.AsyncCursor[Any]], _FirstError]":
    """Run them in one pipeline, whatever factories the connection has."""
    cursors: list[psycopg.AsyncCursor[Any]] = []
    first = _FirstError()
    with first:
        async with connection.pipeline():
            with first:
                for each in statements:
                    cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
                    cursors.append(await cursor.execute(*each, prepare=True))
    return cursors, first


class _FirstError:
    """Keeps the first error of a pipeline, as a context manager inside it and around it.

    Without the one inside, psycopg logs every error after the first; without the
    one around, the last error hides the first, which alone has the SQLSTATE.
    """

    def __init__(self) -> None:
        self._outer = sys.exception()
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is not None and self._error is None:
            self._error = self._root(error)
        return error is not None

    def check(self) -> None:
        """Raise it, if there is one."""
        if self._error is not None:
            raise self._error

    def _root(self, error: BaseException) -> BaseException:
        """The error that was being handled when this one came, if not from before the pipeline."""
        while not error.__suppress_context__:
            earlier = error.__context__
            if earlier is self._outer or not isinstance(earlier, psycopg.Error):
                break
            error = earlier
        return error


def _is_aborted(connection: Connection | AsyncConnection) -> bool:
    """Whether a statement failed and the COMMIT was skipped; the connection may be kept."""
    return connection.info.transaction_status is TransactionStatus.INERROR


def check_committed(answer: str | None) -> None:
    """Raise unless it is COMMIT: that of an aborted transaction is ROLLBACK, and no error.

    Another answer proves nothing: an error without SQLSTATE leaves the outcome in doubt.
    """
    if answer == "COMMIT":
        return
    kind = errors.TransactionRollback if answer == "ROLLBACK" else psycopg.OperationalError
    raise kind(f"the database answered {answer} to COMMIT")
