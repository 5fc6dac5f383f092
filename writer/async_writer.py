"""The writer for async code."""

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
    call_in_children,
    exchange,
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
    """Stores events, each in one transaction with its outbox row; for asyncio.

    Making one does no I/O; connections are opened when needed. `hooks` are told
    every fact beside the log and OpenTelemetry. Leave it by `async with` or
    `close`.
    """

    def __init__(
        self,
        database: Database,
        settings: WriterSettings | None = None,
        *,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self._core = Core(database, settings or WriterSettings(), hooks)
        self._connections = AsyncConnections(
            database,
            self._core.settings.max_connections,
            keep_failed=not self._core.fresh_retries,
            max_idle=self._core.settings.max_idle,
        )
        self._shards: int | None = None
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
        """Store one event; the receipt is proof that it is stored exactly once.

        `event` is an `Event`, a mapping, or JSON text or bytes, which are kept
        exactly. `timeout` is seconds for everything, waits included.
        `on_duplicate="return"` gives a receipt with status ``duplicate`` if the id
        is stored with the same content, savedDate aside; other content under a stored
        id is a `DuplicateEvent` always.
        `expected_version` is the version that the subject must have before, 0
        for an entity that does not exist.

        Raises `InvalidEvent` or `EventTooLarge` before anything is sent;
        `DuplicateEvent`; `StaleVersion`; `OutcomeUnknown`; `SchemaError` if the tables are
        missing; or the driver's own last exception, unchanged, when it is not
        stored for any other reason.
        """
        require_outermost(self._core, "write")
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
        """Store many events in few transactions; returns how each ended, in their order.

        An outcome is a receipt, or the exception that `write` would have raised.
        All events are checked before the first is sent. Transactions are cut to
        what the database takes; one that fails because of single events is split
        so that the others are stored. Events with the same subject keep their
        order. An id that is there twice is tried at both places: the second is a
        duplicate if the first is stored, and is stored itself if the first is not.
        `expected_versions` has an entry an event. `timeout` is seconds for
        everything.
        """
        require_outermost(self._core, "write_many")
        job = Job(timeout)
        with Many(self._core, job, on_duplicate) as many:
            many.add(events, expected_versions)
            for batch in many.batches():
                await self._drive(write_steps(batch, monotonic), job)
        return many.outcomes

    async def transact(
        self, function: Callable[[AsyncTransaction], Awaitable[T]], *, timeout: float | None = None
    ) -> T:
        """Run `function` in a transaction and commit it; returns what it returned.

        `function` is given the transaction: `connection` for statements of your
        own, `append` for events. It runs again, on another connection, when the
        transaction meets a conflict or the connection is lost, so it must do
        nothing else that counts. `timeout` is seconds for everything.

        What `function` raises itself ends the call after a rollback. Raises
        `DuplicateEvent`; `StaleVersion`; `OutcomeUnknown`, if the connection was
        lost at the commit and nothing was appended, or other events than before;
        the driver's last exception, unchanged; `TransactionMisused`.
        """
        require_outermost(self._core, "transact")
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
        """Write one event in a transaction that is yours: you commit, you retry.

        The receipt is true once you have committed. Nothing is tried again. One
        round trip; the writer's first use also asks the database some questions,
        on a connection of its own. A taken id is looked up there, too. Raises
        `InvalidEvent` before anything is sent; `DuplicateEvent`; `StaleVersion`;
        `SchemaError`; the driver's exceptions, unchanged; `psycopg.ProgrammingError`
        for a connection in autocommit mode without an open transaction.
        """
        require_transaction(connection)
        joined = Joined(self._core, event, expected_version)
        with joined.scopes:
            if self._shards is None:
                self._shards = await self._apart(self._count_shards)
            try:
                stored = await append_async(self._core, connection, self._shards, joined.pending)
            except psycopg.errors.UniqueViolation as error:
                with suppress(psycopg.Error):  # the driver's error says less, but is true
                    joined.refuse(
                        await self._apart(partial(self._find, ids=[joined.pending.id])), error
                    )
                raise
            return joined.receipt(stored)

    async def stream(
        self, entity_type: str, entity_id: str, *, after: int = 0
    ) -> AsyncIterator[StoredEvent]:
        """Read an entity's events in version order, those after version `after`.

        They are read page by page: memory is bounded, no connection is held
        meanwhile, and events stored while reading are read too. A page is tried
        again as a write is; then the driver's exception is raised.
        """
        stream = EntityStream(self._core, entity_type, entity_id, after)
        while not stream.is_at_end:
            await self._drive(stream.steps(monotonic), Job(None))
            for event in stream.page():
                yield event

    async def close(self) -> None:
        """Let what is coalesced come to its end, then close the connections that nobody uses."""
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

    def _begin_coalescing(self) -> None:
        """Have empty lanes; in a forked child nothing drives those of the parent."""
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
        except Exception as error:  # noqa: BLE001 - the steps classify it
            return Failed(error)
        try:
            job.known = result = await self._run_on(connection, step, job)
            wrote = isinstance(result, Committed) and not isinstance(step, ReadPage)
            if wrote and self._core.alarm.is_due():
                await self._look_at_backlog(connection)
        except BaseException as error:
            self._connections.give_up(connection, error)
            if isinstance(error, Exception):
                return job.known or Failed(self._core.named(error), job.sent)
            raise
        self._connections.give_back(connection)
        return result

    async def _look_at_backlog(self, connection: AsyncConnection) -> None:
        """Tell how old it is; the write's outcome is known, and stays what it is."""
        alarm = self._core.alarm
        connection.deadline = alarm.deadline(connection.deadline)
        try:
            alarm.saw(await _rows(connection, alarm.query))
        except Exception as error:  # noqa: BLE001 - it must not harm the write
            alarm.failed(error)

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
        job.send("the write")
        return committed(step.batch, await connection.wait(exchange(connection, query, values)))

    async def _apart(self, ask: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Ask on a connection of our own: a question that fails can end a transaction."""
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
        """The first statement of a writer, and the only one that may turn it to the plain form."""
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
