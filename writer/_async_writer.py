"""The writer for async code."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import anyio

from dsql_outbox.observability import Hook
from dsql_outbox.outbox import AsyncConnection, Database, EventSource, Receipt

from ._build import Parameters
from ._connections import AsyncConnections
from ._core import Core, Row, Work, found
from ._settings import WriterSettings
from ._steps import Absent, Attempt, Failed, Found, LookUp, OnDuplicate, Result, Stored, Wait


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
        self._fresh_retries = self._core.settings.connections == "new"
        self._connections = AsyncConnections(
            database,
            self._core.settings.max_connections,
            keep_failed=not self._fresh_retries,
        )
        self._shards: int | None = None

    async def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        timeout: float | None = None,
    ) -> Receipt:
        """Store one event; the receipt is proof that it is stored exactly once.

        `event` is an `Event`, a mapping, or JSON text or bytes, which are kept
        exactly. `timeout` is seconds for everything, waits included.
        `on_duplicate="return"` gives a receipt with status ``duplicate``.

        Raises `InvalidEvent` or `EventTooLarge` before anything is sent;
        `DuplicateEvent`; `OutcomeUnknown`; `SchemaError` if the tables are
        missing; or the driver's own last exception, unchanged, when it is not
        stored for any other reason.
        """
        work = self._core.work(event, on_duplicate, timeout)
        with work.scopes:
            return await self._drive(work)

    async def close(self) -> None:
        """Close the connections that nobody uses."""
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

    async def _drive(self, work: Work) -> Receipt:
        steps = work.steps()
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                receipt: Receipt = end.value
                return receipt
            try:
                result = await self._run(step, work)
            except BaseException as error:
                steps.throw(error)
                raise

    async def _run(self, step: Attempt | LookUp | Wait, work: Work) -> Result:
        match step:
            case Wait(seconds):
                await anyio.sleep(seconds)
                return None
            case LookUp():
                return await self._look_up(work)
            case Attempt():
                return await self._attempt(step, work)

    async def _attempt(self, step: Attempt, work: Work) -> Result:
        fresh = step.number > 1 and self._fresh_retries
        work.sent = False
        try:
            connection = await self._connections.take(fresh=fresh, deadline=work.deadline)
        except Exception as error:  # noqa: BLE001 - the steps classify it
            return Failed(error, sent=False)
        try:
            result = await self._write_on(connection, step, work)
        except BaseException as error:
            self._connections.give_up(connection)
            if isinstance(error, Exception):
                return Failed(self._core.named(error), work.sent)
            raise
        self._connections.give_back(connection)
        return result

    async def _write_on(
        self, connection: AsyncConnection, step: Attempt, work: Work
    ) -> Stored | Found:
        if self._shards is None:
            self._shards = self._core.shards(await _rows(connection, self._core.shard_count))
        if step.look_first:
            before = await self._find_on(connection, work)
            if isinstance(before, Found):
                return before
        parameters = work.parameters(self._shards)
        work.sent = True
        return work.stored(await _rows(connection, work.statement, parameters))

    async def _look_up(self, work: Work) -> Result:
        try:
            connection = await self._connections.take(
                fresh=self._fresh_retries, deadline=work.deadline
            )
        except Exception as error:  # noqa: BLE001 - the steps classify it
            return Failed(error, sent=False)
        try:
            result = await self._find_on(connection, work)
        except BaseException as error:
            self._connections.give_up(connection)
            if isinstance(error, Exception):
                return Failed(error, sent=False)
            raise
        self._connections.give_back(connection)
        return result

    async def _find_on(self, connection: AsyncConnection, work: Work) -> Found | Absent:
        return found(await _rows(connection, self._core.find, {"id": work.event_id}))


async def _rows(
    connection: AsyncConnection, query: bytes, parameters: Parameters | None = None
) -> Sequence[Row]:
    return await (await connection.execute(query, parameters)).fetchall()
