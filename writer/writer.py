"""The writer for synchronous code: threads, scripts and Lambda functions."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, Self, TypeVar, overload

from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox.arguments import given_hooks, given_settings
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.database import Database, require_database, used_by
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.sessions.caller_session import refuse_commit
from dsql_outbox.outbox.sessions.joinable import Joinable, session_of
from dsql_outbox.outbox.unit_of_work.connections.thread_connections import Connections
from dsql_outbox.outbox.unit_of_work.run_transaction import Sessions
from dsql_outbox.outbox.unit_of_work.turns import EntityKey
from dsql_outbox.writer.attempt.pending import OnDuplicate, WriteOutcome
from dsql_outbox.writer.program.call_arguments import (
    listed_entities,
    require_function,
    require_version,
)
from dsql_outbox.writer.program.programs import Programs
from dsql_outbox.writer.program.stream import EntityStream, StoredEvent
from dsql_outbox.writer.statement.answers import StoredEntity
from dsql_outbox.writer.transact.append import APPEND
from dsql_outbox.writer.transact.call import Call, Run, innermost, require_sync, transaction_of
from dsql_outbox.writer.transact.transaction import Transaction, invoke

from .core import Core
from .doorbell import ThreadDoorbell
from .settings import WriterSettings
from .writer_base import WriterBase

T = TypeVar("T")


class Writer(WriterBase):
    """Stores events, each in one transaction with its outbox row. Safe to share among threads.

    The constructor does no I/O; connections open on demand. `hooks` receive every fact that
    the log and OpenTelemetry receive. Close a writer by `with` or `close`.

    Raises `SettingsError` if `coalesce` is set, which only `AsyncWriter` supports.

        >>> with Writer(database) as writer:
        ...     writer.write(event).status
        'committed'
    """

    def __init__(
        self,
        database: Database,
        settings: WriterSettings | None = None,
        *,
        hooks: Iterable[Hook] = (),
    ) -> None:
        require_database("Writer", database)
        database = used_by("writer", database)
        settings = given_settings("Writer", settings, WriterSettings)
        if settings.coalesce:
            raise SettingsError(
                f"WriterSettings.coalesce={settings.coalesce} needs an AsyncWriter: "
                "a Writer has a transaction for each call"
            )
        self._core = Core(database, settings, given_hooks("Writer", hooks))
        self._connections = Connections(
            "writer",
            database,
            settings.max_connections,
            keep_failed=False,
            max_idle=self._core.settings.max_idle,
        )
        self._perform = self._connections.perform
        self._doorbell = ThreadDoorbell(self._connections, database.schema, is_on=settings.doorbell)
        self._programs = Programs(self._core, self._connections, self._doorbell.ring)

    def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        return self._perform(self._programs.write(event, on_duplicate, expected_version, timeout))

    def write_many(
        self,
        events: Iterable[EventSource],
        *,
        on_duplicate: OnDuplicate = "error",
        expected_versions: Iterable[int | None] | None = None,
        timeout: float | None = None,
    ) -> list[WriteOutcome]:
        return self._perform(
            self._programs.write_many(events, on_duplicate, expected_versions, timeout)
        )

    @overload
    def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        entities: Iterable[EntityKey] = ...,
        on_duplicate: Literal["error"] = ...,
        timeout: float | None = ...,
    ) -> T: ...

    @overload
    def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        entities: Iterable[EntityKey] = ...,
        on_duplicate: OnDuplicate,
        timeout: float | None = ...,
    ) -> T | Receipt: ...

    def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        entities: Iterable[EntityKey] = (),
        on_duplicate: OnDuplicate = "error",
        timeout: float | None = None,
    ) -> T | Receipt:
        return self._transact_in(
            None, function, entities=entities, on_duplicate=on_duplicate, timeout=timeout
        )

    def _transact_in(
        self,
        sessions: Sessions | None,
        function: Callable[[Any], T],
        *,
        entities: Iterable[EntityKey],
        on_duplicate: OnDuplicate,
        timeout: float | None,
    ) -> T | Receipt:
        """Perform `transact` in sessions of the caller, or on connections of the writer."""
        gate = self._programs.open_gate("transact", timeout)
        named = listed_entities(entities)
        require_function("transact", function)
        require_sync(function)
        invoke = partial(self._invoke_in if sessions else self._invoke, function)
        call: Call[T] = self._programs.call(gate, invoke, on_duplicate, sessions)
        with innermost(call):
            self._perform(self._programs.transact(call, gate, named))
        return call.result()

    def append_to(
        self, connection: Joinable, event: EventSource, *, expected_version: int | None = None
    ) -> Receipt:
        try:
            if (transaction := transaction_of(self._core, connection)) is not None:
                receipt: Receipt = transaction.append(event, expected_version=expected_version)
                return receipt
            session = session_of(connection, APPEND)
            return self._perform(self._programs.append_to(session, event, expected_version))
        except BaseException as error:
            try:
                self._perform(refuse_commit(connection, error, APPEND, session_of))
            except BaseException:  # an interrupt, while an error is told
                self._perform(refuse_commit(connection, error, APPEND, session_of))
                raise
            raise

    def stream(self, entity_type: str, entity_id: str, *, after: int = 0) -> Iterator[StoredEvent]:
        require_version(after, "after")
        stream = EntityStream(self._core, entity_type, entity_id, after)
        while not stream.is_at_end:
            self._perform(self._programs.read_page(stream))
            yield from stream.events

    def entity(self, entity_type: str, entity_id: str) -> StoredEntity | None:
        return self._perform(self._programs.entity(entity_type, entity_id))

    def ring(self) -> None:
        self._doorbell.ring()

    def close(self) -> None:
        self._programs.is_closed = True
        self._doorbell.close()
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _invoke(
        self, function: Callable[[Transaction], T], run: Run[Any], connection: Connection
    ) -> T:
        transaction = run.transaction = self._transaction(run, connection)
        with run.event_ids():
            return invoke(function, transaction)

    def _invoke_in(self, function: Callable[[Any], T], run: Run[Any], session: Any) -> T:
        run.transaction = self._transaction(run, session)
        with run.event_ids():
            return invoke(function, session)

    def _transaction(self, run: Run[Any], connection: Any) -> Transaction:
        def append(event: EventSource, expected_version: int | None) -> Receipt:
            session = session_of(connection, APPEND)
            return self._perform(self._programs.append(run, session, event, expected_version))

        def entity(entity_type: str, entity_id: str) -> StoredEntity | None:
            return self._perform(
                self._programs.entity_inside(run, connection, entity_type, entity_id)
            )

        return Transaction(connection, run, append, entity)
