"""The transaction that the function of `transact` receives.

A run sends BEGIN, the statements and appends of the function, and COMMIT. Each takes
one round trip.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.writer.statement.answers import StoredEntity

from .call import Run

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

Append = Callable[[EventSource, int | None], T]
"""Writes an event, with its expected version, in the transaction of a run."""

ReadEntity = Callable[[str, str], T]
"""Reads an entity, by type and id, in the transaction of a run."""

_AWAITABLE: Final = (
    "the function given to Writer.transact returned an awaitable, which is never awaited: "
    "nothing is stored; give it to AsyncWriter.transact"
)
_PLAIN: Final = (
    "the function given to AsyncWriter.transact returned nothing to await: nothing is stored; "
    "make it an `async def`, or give a plain function to Writer.transact"
)


class Transaction:
    """The transaction that the function given to `Writer.transact` runs in.

    It begins before the function runs and is committed after the function returns.
    `connection` is for the caller's own statements. Do not commit or roll back on it,
    and do not change session settings.

        >>> def sell(transaction: Transaction) -> int:
        ...     transaction.connection.execute("SELECT 1")  # a statement of the caller
        ...     return transaction.append(event).entities[0].version
        >>> with Writer(database) as writer:
        ...     writer.transact(sell)
        1
    """

    def __init__(
        self,
        connection: Connection,
        run: Run[Any],
        append: Append[Receipt],
        entity: ReadEntity[StoredEntity | None],
    ) -> None:
        self.connection: psycopg.Connection[Any] = connection
        self._run = run
        self._append = append
        self._entity = entity
        self._one_at_a_time = threading.Lock()

    def append(self, event: EventSource, *, expected_version: int | None = None) -> Receipt:
        """Write one event in this transaction. The receipt is valid after `transact` returns.

        Raises `InvalidEvent` before anything is sent, `StaleVersion`, `TransactionMisused` for
        an id that was appended before, or the driver's error. Do not catch them: nothing of the
        transaction is stored then, and `transact` raises the error at the end.
        """
        try:
            with self._one_at_a_time:
                return self._append(event, expected_version)
        except BaseException as error:
            self._run.note_refused(error, "append")
            raise

    def entity(self, entity_type: str, entity_id: str) -> StoredEntity | None:
        """Read an entity in this transaction, with its events of this run. None without any.

        Another transaction may change it before the commit: write with `expected_version`.
        """
        with self._one_at_a_time:
            return self._entity(entity_type, entity_id)


class AsyncTransaction:
    """The transaction that the function given to `AsyncWriter.transact` runs in.

    It begins before the function runs and is committed after the function returns.
    `connection` is for the caller's own statements. Do not commit or roll back on it,
    and do not change session settings.

        >>> import asyncio
        >>> async def sell(transaction: AsyncTransaction) -> int:
        ...     await transaction.connection.execute("SELECT 1")  # a statement of the caller
        ...     return (await transaction.append(event)).entities[0].version
        >>> async def write() -> int:
        ...     async with AsyncWriter(database) as writer:
        ...         return await writer.transact(sell)
        >>> asyncio.run(write())
        1
    """

    def __init__(
        self,
        connection: AsyncConnection,
        run: Run[Any],
        append: Append[Coroutine[Any, Any, Receipt]],
        entity: ReadEntity[Coroutine[Any, Any, StoredEntity | None]],
    ) -> None:
        self.connection: psycopg.AsyncConnection[Any] = connection
        self._run = run
        self._append = append
        self._entity = entity
        self._one_at_a_time = asyncio.Lock()

    def append(
        self, event: EventSource, *, expected_version: int | None = None
    ) -> Coroutine[Any, Any, Receipt]:
        """Write one event in this transaction. The receipt is valid after `transact` returns.

        Await it before the function returns. Otherwise the call ends with
        `TransactionMisused`. Raises `InvalidEvent` before anything is sent,
        `StaleVersion`, or the driver's error. Do not catch them: nothing of the
        transaction is stored then, and `transact` raises the error at the end.
        """
        return self._run.awaited(partial(self._append_alone, event, expected_version))

    async def entity(self, entity_type: str, entity_id: str) -> StoredEntity | None:
        """Read an entity in this transaction, with its events of this run. None without any.

        Another transaction may change it before the commit: write with `expected_version`.
        """
        async with self._one_at_a_time:
            return await self._entity(entity_type, entity_id)

    async def _append_alone(self, event: EventSource, expected_version: int | None) -> Receipt:
        try:
            async with self._one_at_a_time:
                return await self._append(event, expected_version)
        except BaseException as error:
            self._run.note_refused(error, "append")
            raise


def invoke(function: Callable[[Transaction], T], transaction: Transaction) -> T:
    """Call the function given to `transact`. Raises `TypeError` if it returns an awaitable."""
    value = function(transaction)
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()  # else Python warns that it was never awaited
        raise TypeError(_AWAITABLE)
    return value


async def invoke_async(
    function: Callable[[AsyncTransaction], Awaitable[T]], transaction: AsyncTransaction
) -> T:
    """Call the function given to `transact`. Raises `TypeError` if it returns nothing to await."""
    awaitable = function(transaction)
    if not inspect.isawaitable(awaitable):
        raise TypeError(_PLAIN)
    return await awaitable
