"""The transaction that the function of `transact` receives, and the execution of one run.

A run sends BEGIN, the statements and appends of the function, and COMMIT. Each takes
one round trip.
"""

import asyncio
import inspect
import threading
from collections.abc import Coroutine, Generator, Iterable
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox import AsyncConnection, Connection, Entity, Event, EventSource, Receipt
from dsql_outbox.writer.attempt.pending import Pending, Stored
from dsql_outbox.writer.attempt.steps import Committed, Failed
from dsql_outbox.writer.core import Job
from dsql_outbox.writer.statement.pipeline import check_committed

from .append import append, append_async, receipt_in_transaction
from .run import Run

_AWAITABLE: Final = (
    "the function given to Writer.transact returned an awaitable, which nobody awaits: "
    "nothing is stored; give it to AsyncWriter.transact"
)
_PLAIN: Final = (
    "the function given to AsyncWriter.transact returned nothing to await: nothing is stored; "
    "make it an `async def`, or give a plain function to Writer.transact"
)


class _TransactionBase:
    """The part of a transaction that does no I/O."""

    def __init__(self, run: Run[Any], shards: int) -> None:
        self._run = run
        self._shards = shards

    def new_event(
        self,
        name: str,
        type: str,  # noqa: A002 - the name of the field
        entities: Iterable[Entity],
        *,
        created_date: datetime | None = None,
    ) -> Event:
        """Return a new event. The n-th event of a run has the same id in every run of this call.

        So if the COMMIT of a run is lost, a look-up of its first event tells whether that
        run was committed.
        """
        event_id = self._run.next_event_id()
        return Event.new(name, type, entities, id=event_id, created_date=created_date)

    def _receipt(self, pending: Pending, stored: Stored) -> Receipt:
        run = self._run
        return receipt_in_transaction(
            pending, stored, attempts=run.number, conflicts=run.call.conflicts
        )


class Transaction(_TransactionBase):
    """The transaction that the function given to `Writer.transact` runs in.

    It begins before the function runs and is committed after the function returns.
    `connection` is for the caller's own statements. Do not commit or roll back on it,
    and do not change session settings.
    """

    def __init__(self, connection: Connection, run: Run[Any], shards: int) -> None:
        super().__init__(run, shards)
        self.connection: psycopg.Connection[Any] = connection
        self._one_at_a_time = threading.Lock()

    def append(self, event: EventSource, *, expected_version: int | None = None) -> Receipt:
        """Write one event in this transaction. The receipt is valid after `transact` returns.

        Raises `InvalidEvent` before anything is sent, `StaleVersion`, `TransactionMisused` for
        an id that was appended before, or the driver's error. Do not catch the last three: the
        transaction has failed.
        """
        with self._one_at_a_time:
            before = self.connection.info.transaction_status
            pending = self._run.append(event, expected_version, before)
            with self._run.appending(pending.id, before):
                core = self._run.call.core
                return self._receipt(pending, append(core, self.connection, self._shards, pending))


class AsyncTransaction(_TransactionBase):
    """The transaction that the function given to `AsyncWriter.transact` runs in.

    It begins before the function runs and is committed after the function returns.
    `connection` is for the caller's own statements. Do not commit or roll back on it,
    and do not change session settings.
    """

    def __init__(self, connection: AsyncConnection, run: Run[Any], shards: int) -> None:
        super().__init__(run, shards)
        self.connection: psycopg.AsyncConnection[Any] = connection
        self._one_at_a_time = asyncio.Lock()

    def append(
        self, event: EventSource, *, expected_version: int | None = None
    ) -> Coroutine[Any, Any, Receipt]:
        """Write one event in this transaction. The receipt is valid after `transact` returns.

        Await it before the function returns. Otherwise the call ends with
        `TransactionMisused`. Raises `InvalidEvent` before anything is sent,
        `StaleVersion`, or the driver's error. Do not catch the last two: the transaction
        has failed.
        """
        self._run.unfinished += 1  # not in _append, which never starts if it is not awaited
        return self._append(event, expected_version)

    async def _append(self, event: EventSource, expected_version: int | None) -> Receipt:
        try:
            async with self._one_at_a_time:
                before = self.connection.info.transaction_status
                pending = self._run.append(event, expected_version, before)
                with self._run.appending(pending.id, before):
                    core = self._run.call.core
                    stored = await append_async(core, self.connection, self._shards, pending)
                    return self._receipt(pending, stored)
        finally:
            self._run.unfinished -= 1


def execute(connection: Connection, run: Run[Any], shards: int, job: Job) -> Committed | Failed:
    """Execute one run. Raise an error of the database; return an error of the caller."""
    connection.execute(connection.begin)
    with _watched(connection, run), _kept_factories(connection):
        raised = _called(run, Transaction(connection, run, shards))
    error = run.end(raised, connection.info.transaction_status)
    if error is not None:
        if _can_roll_back(connection, run):
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        return _failed(run, error)
    job.send("COMMIT")
    return _committed(connection.execute("COMMIT").statusmessage)


async def execute_async(
    connection: AsyncConnection, run: Run[Any], shards: int, job: Job
) -> Committed | Failed:
    """Execute one run. Raise an error of the database; return an error of the caller."""
    await connection.execute(connection.begin)
    with _watched(connection, run), _kept_factories(connection):
        raised = await _called_async(run, AsyncTransaction(connection, run, shards))
    error = run.end(raised, connection.info.transaction_status)
    if error is not None:
        if _can_roll_back(connection, run):
            with suppress(psycopg.Error):
                await connection.execute("ROLLBACK")
        return _failed(run, error)
    job.send("COMMIT")
    return _committed((await connection.execute("COMMIT")).statusmessage)


def _called(run: Run[Any], transaction: Transaction) -> Exception | None:
    try:
        value = run.call.function(transaction)
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()  # else Python warns that it was never awaited
            raise TypeError(_AWAITABLE)
        run.value = value
    except Exception as error:  # noqa: BLE001 - the run decides whose error it is
        return error
    return None


async def _called_async(run: Run[Any], transaction: AsyncTransaction) -> Exception | None:
    try:
        awaitable = run.call.function(transaction)
        if not inspect.isawaitable(awaitable):
            raise TypeError(_PLAIN)
        run.value = await awaitable
    except Exception as error:  # noqa: BLE001 - the run decides whose error it is
        return error
    return None


def _can_roll_back(connection: Connection | AsyncConnection, run: Run[Any]) -> bool:
    """Return whether a ROLLBACK can be sent. Close a connection that runs a statement."""
    status = connection.info.transaction_status
    if status is TransactionStatus.ACTIVE or run.unfinished:
        connection.drop()
        return False
    return status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}


def _failed(run: Run[Any], error: Exception) -> Failed:
    if run.is_callers_error:
        return Failed(error)
    raise error


def _committed(tag: str | None) -> Committed:
    """Check the command tag of COMMIT, which is ROLLBACK if the transaction had failed."""
    check_committed(tag)
    return Committed(())


@contextmanager
def _watched(connection: Connection | AsyncConnection, run: Run[Any]) -> Generator[None]:
    """Report each error of the connection to the run, and let the run refuse statements."""
    connection.before_send, connection.on_error = run.require_open, run.note_failure
    try:
        yield
    finally:
        connection.before_send = connection.on_error = None


@contextmanager
def _kept_factories(connection: Connection | AsyncConnection) -> Generator[None]:
    """Restore the factories that the function may have changed: the connection is reused."""
    kept: Any = connection  # the two kinds of connection have differently typed factories
    rows, cursors = kept.row_factory, kept.cursor_factory
    try:
        yield
    finally:
        kept.row_factory, kept.cursor_factory = rows, cursors
