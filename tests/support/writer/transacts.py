"""Both kinds of `transact` behind one face: a plain function, run by threads or by asyncio."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID

import anyio
import pytest
from anyio.from_thread import BlockingPortal
from tests.support.dsql.server import KINDS

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox import Database, Entity, Event, Receipt
from dsql_outbox.writer import (
    AsyncTransaction,
    AsyncWriter,
    StoredEntity,
    StoredEvent,
    Transaction,
    Writer,
    WriterSettings,
)

from .callers import QUICK, formed
from .checked_tables import Tables

T = TypeVar("T")


class Work:
    """A transaction as the function under test sees it."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction

    def execute(self, query: str, *parameters: Any) -> list[Any]:
        """Run a statement of the caller's own."""
        cursor = self.transaction.connection.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def append(self, event: Any, expected_version: int | None = None) -> Receipt:
        """Write an event."""
        return self.transaction.append(event, expected_version=expected_version)

    def block(self, *, force_rollback: bool) -> AbstractContextManager[object]:
        """A block of psycopg's in the transaction: a savepoint."""
        return self.transaction.connection.transaction(force_rollback=force_rollback)

    def entity(self, kind: str, entity_id: str) -> StoredEntity | None:
        """Read an entity."""
        return self.transaction.entity(kind, entity_id)

    def new_event(self, car: str = "CAR-1") -> Event:
        """An event whose id is the call's."""
        return Event.new("CarCreated", [Entity("Car", car)])


class AsyncWork(Work):
    """The same for asyncio: the function runs in a thread beside the loop."""

    transaction: AsyncTransaction  # type: ignore[assignment]

    def __init__(self, transaction: AsyncTransaction) -> None:
        self.transaction = transaction

    def execute(self, query: str, *parameters: Any) -> list[Any]:
        async def run() -> list[Any]:
            connection = self.transaction.connection
            cursor = await connection.execute(query.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description else []

        return anyio.from_thread.run(run)

    def append(self, event: Any, expected_version: int | None = None) -> Receipt:
        append = partial(self.transaction.append, expected_version=expected_version)
        return anyio.from_thread.run(append, event)

    @contextmanager
    def block(self, *, force_rollback: bool) -> Iterator[None]:
        block = self.transaction.connection.transaction(force_rollback=force_rollback)
        anyio.from_thread.run(block.__aenter__)
        try:
            yield
        except BaseException as error:
            anyio.from_thread.run(block.__aexit__, type(error), error, error.__traceback__)
            raise
        anyio.from_thread.run(block.__aexit__, None, None, None)

    def entity(self, kind: str, entity_id: str) -> StoredEntity | None:
        return anyio.from_thread.run(self.transaction.entity, kind, entity_id)


class Threads:
    """`Writer`."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.close = writer.close

    def transact(self, function: Callable[[Work], T], **options: Any) -> Any:
        return self.writer.transact(lambda tx: function(Work(tx)), **options)

    def stream(self, kind: str, entity_id: str, after: int = 0) -> Iterator[StoredEvent]:
        return self.writer.stream(kind, entity_id, after=after)

    def entity(self, kind: str, entity_id: str) -> StoredEntity | None:
        return self.writer.entity(kind, entity_id)


class Tasks:
    """`AsyncWriter` in the event loop of `portal`."""

    def __init__(self, portal: BlockingPortal, writer: AsyncWriter) -> None:
        self._portal = portal
        self.writer = writer

    def transact(self, function: Callable[[Work], T], **options: Any) -> Any:
        async def in_thread(transaction: AsyncTransaction) -> T:
            return await anyio.to_thread.run_sync(function, AsyncWork(transaction))

        return self._portal.call(partial(self.writer.transact, in_thread, **options))

    def stream(self, kind: str, entity_id: str, after: int = 0) -> Iterator[StoredEvent]:
        events = self.writer.stream(kind, entity_id, after=after)
        while (event := self._portal.call(partial(anext, events, None))) is not None:
            yield event

    def entity(self, kind: str, entity_id: str) -> StoredEntity | None:
        return self._portal.call(self.writer.entity, kind, entity_id)

    def close(self) -> None:
        self._portal.call(self.writer.close)


class OpenTransactor(Protocol):
    """Makes a writer that is closed at the end of the test."""

    def __call__(
        self, database: Database | str, settings: WriterSettings = QUICK, hooks: list[Hook] = ...
    ) -> Any:
        """A writer on a database, or on the URL of one."""
        ...


@pytest.fixture(params=KINDS)
def open_transactor(
    request: pytest.FixtureRequest, portal: BlockingPortal
) -> Iterator[OpenTransactor]:
    """Makes writers: each test runs with `Writer` and with `AsyncWriter`."""
    opened: list[Threads | Tasks] = []

    def open_one(
        database: Database | str, settings: WriterSettings = QUICK, hooks: list[Hook] | None = None
    ) -> Threads | Tasks:
        settings = formed(settings)
        made = Database(database) if isinstance(database, str) else database
        if request.param == "threads":
            opened.append(Threads(Writer(made, settings, hooks=hooks or [])))
        else:
            opened.append(Tasks(portal, AsyncWriter(made, settings, hooks=hooks or [])))
        return opened[-1]

    yield open_one
    for writer in opened:
        writer.close()


@pytest.fixture
def own(tables: Tables) -> Tables:
    """The tables, with one of the caller's own that has no unique key."""
    tables.execute("DROP TABLE IF EXISTS own")
    tables.execute("CREATE TABLE own (n int)")
    tables.execute("INSERT INTO own VALUES (0)")
    return tables


def own_rows(tables: Tables) -> int:
    """How many rows the callers' functions have added."""
    return int(tables.execute("SELECT count(*) AS n FROM own")[0]["n"]) - 1


def ids(tables: Tables) -> set[UUID]:
    """The stored events."""
    return {row["id"] for row in tables.events()}
