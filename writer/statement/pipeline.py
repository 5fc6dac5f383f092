"""Run a whole transaction in one psycopg pipeline, so in one round trip.

The transaction has a BEGIN and a COMMIT of its own. The implicit transaction of a
pipeline is committed by the Sync message, and psycopg loses the SQLSTATE of an error
at that point. Rows are valid only after the pipeline is closed and the answer
to COMMIT was COMMIT.
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

from dsql_outbox.outbox import AsyncConnection, Connection, is_interrupt

from .plain import Statements

Rows = Sequence[Sequence[Any]]


def run(connection: Connection, transaction: Statements) -> Rows:
    """Run a transaction, and return the rows of the last statement before COMMIT.

    Raises the first error of any statement.
    """
    cursors, first = _sent(connection, transaction)
    if _is_aborted(connection):
        with suppress(psycopg.Error):
            connection.rollback()
    first.check()
    check_committed(cursors[-1].statusmessage)
    return cursors[-2].fetchall()


async def run_async(connection: AsyncConnection, transaction: Statements) -> Rows:
    """Run a transaction, and return the rows of the last statement before COMMIT.

    Raises the first error of any statement.
    """
    cursors, first = await _sent_async(connection, transaction)
    if _is_aborted(connection):
        with suppress(psycopg.Error):
            await connection.rollback()
    first.check()
    check_committed(cursors[-1].statusmessage)
    return await cursors[-2].fetchall()


def run_inside(connection: psycopg.Connection[Any], statements: Statements) -> Rows:
    """Run statements in an open transaction, and return the rows of the last one.

    Raises the first error of any statement. The transaction stays open.
    """
    cursors, first = _sent(connection, statements)
    first.check()
    return cursors[-1].fetchall()


async def run_inside_async(
    connection: psycopg.AsyncConnection[Any], statements: Statements
) -> Rows:
    """Run statements in an open transaction, and return the rows of the last one.

    Raises the first error of any statement. The transaction stays open.
    """
    cursors, first = await _sent_async(connection, statements)
    first.check()
    return await cursors[-1].fetchall()


def run_first(connection: Connection, statements: Statements) -> Rows:
    """Run statements outside a transaction, and return the rows of the first one.

    Raises the first error of any statement.
    """
    cursors, first = _sent(connection, statements)
    first.check()
    return cursors[0].fetchall()


async def run_first_async(connection: AsyncConnection, statements: Statements) -> Rows:
    """Run statements outside a transaction, and return the rows of the first one.

    Raises the first error of any statement.
    """
    cursors, first = await _sent_async(connection, statements)
    first.check()
    return await cursors[0].fetchall()


def _sent(
    connection: psycopg.Connection[Any], statements: Statements
) -> "tuple[list[psycopg.Cursor[Any]], _FirstError]":
    """Run the statements in one pipeline, with plain cursors whatever the connection's factories.

    Return the cursors, and the object that holds the first error.
    """
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
    """Run the statements in one pipeline, with plain cursors whatever the connection's factories.

    Return the cursors, and the object that holds the first error.
    """
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
    """Keeps the first error of a pipeline. Enter it both inside the pipeline and around it.

    Without the inner one, psycopg logs every error after the first. Without the outer
    one, the last error replaces the first, and only the first has the SQLSTATE.
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
        """Raise the first error, if there is one."""
        if self._error is not None:
            raise self._error

    def _root(self, error: BaseException) -> BaseException:
        """Return the interrupt, or else the earliest driver error, in the error's context chain."""
        while not error.__suppress_context__:
            earlier = error.__context__
            if earlier is not None and earlier is not self._outer and is_interrupt(earlier):
                return earlier
            if earlier is self._outer or not isinstance(earlier, psycopg.Error):
                break
            error = earlier
        return error


def _is_aborted(connection: Connection | AsyncConnection) -> bool:
    """Return whether a statement failed and COMMIT was skipped. The connection is still usable."""
    return connection.info.transaction_status is TransactionStatus.INERROR


def check_committed(answer: str | None) -> None:
    """Raise unless the command tag that answers COMMIT is COMMIT.

    For an aborted transaction, the server answers ROLLBACK and reports no error. Any
    other answer leaves the outcome in doubt; the error for it has no SQLSTATE.
    """
    if answer == "COMMIT":
        return
    kind = errors.TransactionRollback if answer == "ROLLBACK" else psycopg.OperationalError
    raise kind(f"the database answered {answer} to COMMIT")
