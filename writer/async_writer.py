"""The writer for asyncio."""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import anyio
import psycopg

from dsql_outbox.observability import Hook, TransactionStarted
from dsql_outbox.outbox import (
    NO_SUCH_FORM,
    AsyncConnection,
    Database,
    EventSource,
    Receipt,
    WriterClosed,
    call_in_children,
    exchange,
    given_hooks,
    given_settings,
    is_interrupt,
    require_database,
    require_seconds,
)
from dsql_outbox.writer.attempt.pending import OnDuplicate, WriteOutcome
from dsql_outbox.writer.attempt.steps import (
    Attempt,
    Committed,
    Failed,
    LookUp,
    Present,
    Result,
    Step,
    Wait,
    interrupt,
    write_steps,
)
from dsql_outbox.writer.coalesce.coalescer import Coalescer
from dsql_outbox.writer.statement.pipeline import run_async, run_first_async
from dsql_outbox.writer.transact.append import Joined, append_async, require_transaction
from dsql_outbox.writer.transact.call import Call, opened, require_outermost
from dsql_outbox.writer.transact.runs import Execute, transact_steps
from dsql_outbox.writer.transact.transaction import AsyncTransaction, execute_async

from .arguments import (
    listed_events,
    listed_versions,
    require_connection,
    require_function,
    require_on_duplicate,
    require_version,
)
from .connections import AsyncConnections
from .core import (
    Core,
    Job,
    Row,
    committed,
    find_parameters,
    present,
    receipt_of,
)
from .settings import WriterSettings
from .stream import EntityStream, ReadPage, StoredEvent
from .write_many import Many

T = TypeVar("T")

_AnyStep = Step | Execute | ReadPage


class AsyncWriter:
    """Stores events, each in one transaction with its outbox row. For asyncio.

    The constructor does no I/O; connections are opened when they are needed. `hooks`
    receive every fact that the log and OpenTelemetry receive. Close a writer by
    `async with` or `close`.
    """

    def __init__(
        self,
        database: Database,
        settings: WriterSettings | None = None,
        *,
        hooks: Iterable[Hook] = (),
    ) -> None:
        require_database("AsyncWriter", database)
        settings = given_settings("AsyncWriter", settings, WriterSettings)
        self._core = Core(database, settings, given_hooks("AsyncWriter", hooks))
        self._connections = AsyncConnections(
            database,
            self._core.settings.max_connections,
            keep_failed=not self._core.fresh_retries,
            max_idle=self._core.settings.max_idle,
        )
        self._shards: int | None = None
        self._is_closed = False
        self._begin_coalescing()
        call_in_children(self._begin_coalescing)

    async def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Store one event. The receipt proves that it is stored exactly once.

        `event` is an `Event`, a mapping, or JSON as text or bytes. JSON is stored
        unchanged. `timeout` is the limit of the call in seconds, waits included.

        With ``on_duplicate="return"``, the call returns a receipt with status
        ``duplicate`` if the id is stored with equal content, ``savedDate`` ignored. For
        a stored id with other content it always raises `DuplicateEvent`.

        `expected_version` is the version that the subject must have before the
        event, or 0 if the subject must not exist.

        Raises, before anything is sent, `InvalidEvent` or `EventTooLarge`. Raises
        `DuplicateEvent`, `StaleVersion`, `OutcomeUnknown`, or `SchemaError` if the tables
        are missing. If the event is not stored for any other reason, raises the last
        exception of the driver, unchanged.
        """
        self._enter("write", timeout)
        require_on_duplicate(on_duplicate)
        require_version(expected_version)
        job = Job(timeout)
        pend = partial(
            self._core.pend,
            event,
            job,
            on_duplicate=on_duplicate,
            expected_version=expected_version,
        )
        if self._coalescer is not None:
            return await self._coalescer.write(job, lambda settled: pend(settled=settled))
        pending = pend()
        with pending.scopes:
            await self._drive(write_steps([pending], monotonic), job)
        return receipt_of(pending)

    async def write_many(
        self,
        events: Iterable[EventSource],
        *,
        on_duplicate: OnDuplicate = "error",
        expected_versions: Iterable[int | None] | None = None,
        timeout: float | None = None,
    ) -> list[WriteOutcome]:
        """Store many events in few transactions. Return one outcome per event, in order.

        An outcome is a receipt, or the exception that `write` would have raised. All
        events are checked before the first is sent. Each transaction is kept within
        the limits of the database. If single events make a transaction fail, it is split
        so that the other events are stored. Events of one subject keep their order.

        If two events have the same id, the second is a duplicate if the first was
        stored; else the second is stored. `expected_versions` has one entry per event.
        `timeout` is the limit of the whole call in seconds.

        Raises `ValueError` if `expected_versions` has another length than `events`.
        """
        self._enter("write_many", timeout)
        require_on_duplicate(on_duplicate)
        events = listed_events(events)
        expected_versions = listed_versions(expected_versions, len(events))
        job = Job(timeout)
        with Many(self._core, job, on_duplicate) as many:
            many.add(events, expected_versions)
            for batch in many.batches():
                await self._drive(write_steps(batch, monotonic), job)
        return many.outcomes

    async def transact(
        self, function: Callable[[AsyncTransaction], Awaitable[T]], *, timeout: float | None = None
    ) -> T:
        """Run `function` in a transaction, commit it, and return what `function` returned.

        The argument of `function` is the transaction. Use its `connection` for your own
        statements and its `append` for events. After a conflict or a lost connection,
        `function` runs again on another connection. So it must have no other side
        effects. `timeout` is the limit of the call in seconds, all runs included.

        An exception of `function` itself ends the call after a rollback, and is raised.
        Raises `DuplicateEvent`, `StaleVersion`, `TransactionMisused`, or the last
        exception of the driver, unchanged. Raises `OutcomeUnknown` if the connection was
        lost at the commit and either the lost run appended no event, or the next run
        appended another event first.
        """
        self._enter("transact", timeout)
        require_function("transact", function)
        job = Job(timeout)
        call: Call[T] = Call(self._core, job, function)
        with opened(call):
            await self._drive(transact_steps(call, monotonic), job)
        return call.result()

    async def append_to(
        self,
        connection: psycopg.AsyncConnection[Any],
        event: EventSource,
        *,
        expected_version: int | None = None,
    ) -> Receipt:
        """Write one event in a transaction of yours, which you commit and retry.

        The receipt is valid after your commit. The call retries nothing. It takes
        one round trip. The writer's first use also asks the database for its shards and
        the form of a write, on a connection of the writer. A stored id is looked up
        on such a connection too.

        Raises `InvalidEvent` before anything is sent, `DuplicateEvent`, `StaleVersion`,
        `SchemaError`, or the driver's exceptions, unchanged. Raises
        `psycopg.ProgrammingError` if the connection is in autocommit mode and has no
        open transaction.
        """
        self._require_open()
        require_version(expected_version)
        require_connection(connection, psycopg.AsyncConnection)
        require_transaction(connection)
        joined = Joined(self._core, event, expected_version)
        with joined.scopes:
            if self._shards is None:
                self._shards = await self._apart(self._count_shards)
            try:
                stored = await append_async(self._core, connection, self._shards, joined.pending)
            except psycopg.errors.UniqueViolation as error:
                with suppress(psycopg.Error):  # without a look-up, the driver's error is raised
                    joined.refuse(
                        await self._apart(partial(self._find, ids=[joined.pending.id])), error
                    )
                raise
            return joined.receipt(stored)

    async def stream(
        self, entity_type: str, entity_id: str, *, after: int = 0
    ) -> AsyncIterator[StoredEvent]:
        """Read the events of an entity with a version above `after`, in version order.

        Events are read in pages, so memory is bounded and no connection is held between
        two pages. Events that are stored during the reading are read too. A failed page
        is retried as a write is. After that, raises the driver's exception.
        """
        require_version(after, "after")
        stream = EntityStream(self._core, entity_type, entity_id, after)
        while not stream.is_at_end:
            self._require_open()
            await self._drive(stream.steps(monotonic), Job(None))
            for event in stream.page():
                yield event

    async def close(self) -> None:
        """Close the writer. A call that is in flight ends as it would have ended.

        Wait for the coalesced writes. Connections that are not in use are closed then, the
        others when their calls end. Later calls raise `WriterClosed`.
        """
        self._is_closed = True
        self._enter_loop()
        try:
            if self._coalescer is not None:
                await self._coalescer.close()
        finally:
            self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _enter(self, method: str, timeout: float | None) -> None:
        """Check that a call may begin here and now."""
        self._require_open()
        require_outermost(self._core, method)
        require_seconds("timeout", timeout)
        self._enter_loop()

    def _require_open(self) -> None:
        if self._is_closed:
            raise WriterClosed

    def _enter_loop(self) -> None:
        """Serve the running event loop. No task of a former one drives its lanes any more."""
        if self._connections.enter_loop():
            self._begin_coalescing()

    def _begin_coalescing(self) -> None:
        """Start with empty lanes. In a forked child no task drives the lanes of the parent."""
        self._coalescer = (
            Coalescer(self._core.settings, self._run, self._core.tell)
            if self._core.settings.coalesce
            else None
        )

    async def _drive(self, steps: Generator[_AnyStep, Result, None], job: Job) -> None:
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            try:
                result = await self._run(step, job)
            except BaseException as error:
                interrupt(steps, job.known, error)
                raise

    async def _run(self, step: _AnyStep, job: Job) -> Result:
        job.known, job.sent = None, False
        if isinstance(step, Wait):
            await anyio.sleep(step.seconds)
            return None
        try:
            fresh = not isinstance(step, LookUp) and step.fresh and self._core.fresh_retries
            connection = await self._connections.take(
                fresh=fresh, deadline=job.deadline, role_path=isinstance(step, Execute)
            )
        except Exception as error:
            if is_interrupt(error):
                raise
            return Failed(error)
        try:
            job.known = result = await self._run_on(connection, step, job)
            wrote = isinstance(result, Committed) and not isinstance(step, ReadPage)
            if wrote and self._core.alarm.is_due():
                await self._look_at_backlog(connection)
        except BaseException as error:
            self._connections.give_up(connection, error)
            if isinstance(error, Exception) and not is_interrupt(error):
                return job.known or Failed(self._core.named(error), job.sent)
            raise
        self._connections.give_back(connection)
        return result

    async def _look_at_backlog(self, connection: AsyncConnection) -> None:
        """Check the backlog. The write is committed; an error here does not change its outcome."""
        alarm = self._core.alarm
        connection.deadline = alarm.deadline(connection.deadline)
        try:
            alarm.saw(await _rows(connection, alarm.query))
        except Exception as error:
            if is_interrupt(error):
                raise
            alarm.failed(error)  # it must not reach the caller

    async def _run_on(
        self, connection: AsyncConnection, step: Attempt | LookUp | Execute | ReadPage, job: Job
    ) -> Committed | Present | Failed:
        if isinstance(step, LookUp):
            return await self._find(connection, step.ids)
        if isinstance(step, ReadPage):
            step.stream.take(await _rows(connection, *step.stream.query))
            return Committed(())
        if self._shards is None:
            self._shards = await self._count_shards(connection)
        if isinstance(step, Execute):
            return await execute_async(connection, step.run, self._shards, job)
        self._core.tell(TransactionStarted(len(step.batch)))
        if self._core.plain or connection.isolation_level is not None:
            transaction = self._core.transaction(step.batch, self._shards, connection.begin)
            job.send("the write")
            return committed(step.batch, await run_async(connection, transaction))
        query, values = self._core.write(step.batch, self._shards)
        sending = exchange(connection, query, values)
        job.send("the write")
        return committed(step.batch, await connection.wait(sending))

    async def _apart(self, ask: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run a query on a connection of the writer.

        In the caller's transaction, a query that fails would abort the transaction.
        """
        connection = await self._connections.take(fresh=False, deadline=None)
        try:
            answer = await ask(connection)
        except BaseException as error:
            self._connections.give_up(connection, error)
            if not isinstance(error, Exception):
                raise
            named = self._core.named(error)
            raise named from named.__cause__
        self._connections.give_back(connection)
        return answer

    async def _find(self, connection: AsyncConnection, ids: Sequence[UUID]) -> Present:
        """Look up which of these events are stored."""
        return present(await _rows(connection, self._core.find, find_parameters(ids)))

    async def _count_shards(self, connection: AsyncConnection) -> int:
        """Read the number of shards, and choose the form of a write if it is ``auto``.

        This is the first statement of a writer.
        """
        core = self._core
        if core.must_probe:
            try:
                return core.shards(await run_first_async(connection, core.probe))
            except NO_SUCH_FORM:
                core.plain = True
        return core.shards(await _rows(connection, core.shard_count))


async def _rows(
    connection: AsyncConnection, query: bytes, parameters: Mapping[str, object] | None = None
) -> Sequence[Row]:
    return await (await connection.execute(query, parameters)).fetchall()
