"""The writer for asyncio."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Literal, Self, TypeVar, overload

from anyio import move_on_after

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox.arguments import given_hooks, given_settings
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database, require_database, used_by
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.sessions.caller_session import FAIL_SECONDS, refuse_commit
from dsql_outbox.outbox.sessions.joinable import AsyncJoinable, async_session_of
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.function_run import run_of
from dsql_outbox.outbox.unit_of_work.run_transaction import Sessions
from dsql_outbox.outbox.unit_of_work.turns import EntityKey
from dsql_outbox.writer.attempt.pending import OnDuplicate, WriteOutcome
from dsql_outbox.writer.coalesce.coalescer import Coalescer
from dsql_outbox.writer.program.call_arguments import (
    listed_entities,
    require_function,
    require_version,
)
from dsql_outbox.writer.program.programs import Programs
from dsql_outbox.writer.program.stream import EntityStream, StoredEvent
from dsql_outbox.writer.statement.answers import StoredEntity
from dsql_outbox.writer.transact.append import APPEND
from dsql_outbox.writer.transact.call import Call, Run, innermost, transaction_of
from dsql_outbox.writer.transact.transaction import AsyncTransaction, invoke_async

from .core import Core
from .doorbell import TaskDoorbell
from .settings import WriterSettings
from .writer_base import WriterBase

T = TypeVar("T")


class AsyncWriter(WriterBase):
    """Stores events, each in one transaction with its outbox row. For asyncio.

    The constructor does no I/O; connections open on demand. `hooks` receive every fact that
    the log and OpenTelemetry receive. Close a writer by `async with` or `close`.

        >>> import asyncio
        >>> async def write() -> str:
        ...     async with AsyncWriter(database) as writer:
        ...         return (await writer.write(event)).status
        >>> asyncio.run(write())
        'committed'
    """

    def __init__(
        self,
        database: Database,
        settings: WriterSettings | None = None,
        *,
        hooks: Iterable[Hook] = (),
    ) -> None:
        require_database("AsyncWriter", database)
        database = used_by("writer", database)
        settings = given_settings("AsyncWriter", settings, WriterSettings)
        self._core = Core(database, settings, given_hooks("AsyncWriter", hooks))
        self._connections = AsyncConnections(
            "writer",
            database,
            settings.max_connections,
            keep_failed=False,
            max_idle=self._core.settings.max_idle,
        )
        self._perform = self._connections.perform
        self._doorbell = TaskDoorbell(self._connections, database.schema, is_on=settings.doorbell)
        self._programs = Programs(self._core, self._connections, self._doorbell.ring)
        self._loop: object = None
        self._start_coalescer()
        call_in_children(self._start_coalescer)

    async def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        self._enter_loop()
        if self._coalescer is not None:
            return await self._coalescer.write(event, on_duplicate, expected_version, timeout)
        return await self._perform(
            self._programs.write(event, on_duplicate, expected_version, timeout)
        )

    async def write_many(
        self,
        events: Iterable[EventSource],
        *,
        on_duplicate: OnDuplicate = "error",
        expected_versions: Iterable[int | None] | None = None,
        timeout: float | None = None,
    ) -> list[WriteOutcome]:
        return await self._perform(
            self._programs.write_many(events, on_duplicate, expected_versions, timeout)
        )

    @overload
    async def transact(
        self,
        function: Callable[[AsyncTransaction], Awaitable[T]],
        *,
        entities: Iterable[EntityKey] = ...,
        on_duplicate: Literal["error"] = ...,
        timeout: float | None = ...,
    ) -> T: ...

    @overload
    async def transact(
        self,
        function: Callable[[AsyncTransaction], Awaitable[T]],
        *,
        entities: Iterable[EntityKey] = ...,
        on_duplicate: OnDuplicate,
        timeout: float | None = ...,
    ) -> T | Receipt: ...

    async def transact(
        self,
        function: Callable[[AsyncTransaction], Awaitable[T]],
        *,
        entities: Iterable[EntityKey] = (),
        on_duplicate: OnDuplicate = "error",
        timeout: float | None = None,
    ) -> T | Receipt:
        return await self._transact_in(
            None, function, entities=entities, on_duplicate=on_duplicate, timeout=timeout
        )

    async def _transact_in(
        self,
        sessions: Sessions | None,
        function: Callable[[Any], Awaitable[T]],
        *,
        entities: Iterable[EntityKey],
        on_duplicate: OnDuplicate,
        timeout: float | None,
    ) -> T | Receipt:
        """Perform `transact` in sessions of the caller, or on connections of the writer."""
        gate = self._programs.open_gate("transact", timeout)
        named = listed_entities(entities)
        self._enter_loop()
        require_function("transact", function)
        invoke = partial(self._invoke_in if sessions else self._invoke, function)
        call: Call[T] = self._programs.call(gate, invoke, on_duplicate, sessions)
        with innermost(call):
            await self._perform(self._programs.transact(call, gate, named))
        return call.result()

    def append_to(
        self, connection: AsyncJoinable, event: EventSource, *, expected_version: int | None = None
    ) -> Coroutine[Any, Any, Receipt]:
        transaction = transaction_of(self._core, connection)
        if transaction is not None:
            appending: Coroutine[Any, Any, Receipt] = transaction.append(
                event, expected_version=expected_version
            )
            return appending
        append = partial(self._append_to, connection, event, expected_version)
        run = run_of(connection)
        return append() if run is None else run.awaited(append)

    async def _append_to(
        self, connection: AsyncJoinable, event: EventSource, expected_version: int | None
    ) -> Receipt:
        try:
            session = async_session_of(connection, APPEND)
            return await self._perform(self._programs.append_to(session, event, expected_version))
        except BaseException as error:
            # Shielded: the scope of a cancelled call would cancel this as well.
            with move_on_after(FAIL_SECONDS, shield=True):
                await self._perform(refuse_commit(connection, error, APPEND, async_session_of))
            raise

    async def stream(
        self, entity_type: str, entity_id: str, *, after: int = 0
    ) -> AsyncIterator[StoredEvent]:
        require_version(after, "after")
        stream = EntityStream(self._core, entity_type, entity_id, after)
        while not stream.is_at_end:
            await self._perform(self._programs.read_page(stream))
            for event in stream.events:
                yield event

    async def entity(self, entity_type: str, entity_id: str) -> StoredEntity | None:
        return await self._perform(self._programs.entity(entity_type, entity_id))

    def ring(self) -> None:
        self._doorbell.ring()

    async def close(self) -> None:
        self._programs.is_closed = True
        self._enter_loop()
        try:
            if self._coalescer is not None:
                await self._coalescer.close()
        finally:
            await self._doorbell.end()
            await self._connections.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _enter_loop(self) -> None:
        """Serve the running event loop. Tasks of a former one no longer drive its lanes."""
        if (loop := self._connections.enter_loop()) is not self._loop:
            self._loop = loop
            self._start_coalescer()
            self._programs.forget_turns()

    def _start_coalescer(self) -> None:
        """Start with empty lanes. In a forked child no task drives the lanes of the parent."""
        lanes = self._core.settings.coalesce
        self._coalescer = (
            Coalescer(self._core, self._programs, self._connections) if lanes else None
        )

    async def _invoke(
        self,
        function: Callable[[AsyncTransaction], Awaitable[T]],
        run: Run[Any],
        connection: AsyncConnection,
    ) -> T:
        transaction = run.transaction = self._transaction(run, connection)
        with run.event_ids():
            return await invoke_async(function, transaction)

    async def _invoke_in(
        self, function: Callable[[Any], Awaitable[T]], run: Run[Any], session: Any
    ) -> T:
        run.transaction = self._transaction(run, session)
        with run.event_ids():
            return await invoke_async(function, session)

    def _transaction(self, run: Run[Any], connection: Any) -> AsyncTransaction:
        async def append(event: EventSource, expected_version: int | None) -> Receipt:
            session = async_session_of(connection, APPEND)
            return await self._perform(self._programs.append(run, session, event, expected_version))

        async def entity(entity_type: str, entity_id: str) -> StoredEntity | None:
            program = self._programs.entity_inside(run, connection, entity_type, entity_id)
            return await self._perform(program)

        return AsyncTransaction(connection, run, append, entity)
