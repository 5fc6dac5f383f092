"""The ports of the relay and of the leases to the tables, on a model of them."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import psycopg
from tests.support.publisher.lease_tables import Tables as LeaseTables

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher.leases.protocol import Renewal
from dsql_outbox.publisher.relay.store import (
    Failure,
    PassedOver,
    Range,
    Reading,
    StoredFailure,
    StoredWait,
)
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.liveness import Snapshot
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.schema.session import (
    CALL_TIMEOUT,
    SHARED_CALL_TIMEOUT,
    CallTimedOut,
    FunctionFailed,
)

from .applied import AppliedHandle, error_of
from .outbox_model import Origin, Tables, id_of
from .watch import Watch
from .wire import Wire

T = TypeVar("T")

_TRIES: Final = 5
"""Transactions that a conflict may end before the last one."""

DEADLINE: Final = 10.0
"""Seconds that a statement of the relay may take."""


class ModelStore:
    """The `Store` of one publisher; `now` returns true time."""

    def __init__(  # noqa: PLR0913 - its surroundings
        self,
        tables: Tables,
        wire: Wire,
        watch: Watch,
        name: str,
        now: Callable[[], float],
        *,
        target: int,
    ) -> None:
        self._tables = tables
        self._wire = wire
        self._watch = watch
        self._name = name
        self._now = now
        self._target = target

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        """See `Store.read`."""

        def apply() -> Reading:
            reading = self._tables.read(ranges, passed)
            for found in reading.ranges:
                self._watch.reads(self._name, map(id_of, found.rows))
            return reading

        return await self._read(apply)

    async def delete(self, rows: Collection[RowId]) -> int:
        """See `Store.delete`."""
        return await self._change(partial(self._tables.delete, tuple(rows), self._origin()))

    async def record(self, failures: Collection[Failure]) -> None:
        """See `Store.record`."""
        self._watch.settles(self._name, "recorded as failed", (each.row for each in failures))
        await self._change(partial(self._tables.record, tuple(failures), self._origin()))

    async def forget(self, rows: Collection[RowId]) -> None:
        """See `Store.forget`. The rows are a set, whose order differs from process to process."""
        await self._change(partial(self._tables.forget, sorted(rows), self._origin()))

    async def bury(self, letters: Collection[Letter]) -> None:
        """See `Store.bury`."""
        self._watch.settles(self._name, "buried", (each.row for each in letters))
        await self._change(partial(self._tables.bury, tuple(letters), self._origin()))

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,
    ) -> bool:
        """See `Store.apply`. What fails a message that is alone counts against it.

        Too long a call does so only if it had all of its time.
        """
        limit = CALL_TIMEOUT if is_aside else SHARED_CALL_TIMEOUT
        try:
            for _ in range(_TRIES):
                with suppress(psycopg.errors.SerializationFailure):
                    return await self._transaction(tuple(rows), calls, limit)
                await anyio.sleep(0.1)
            return await self._transaction(tuple(rows), calls, limit)
        except (FunctionFailed, psycopg.errors.SerializationFailure) as failed:
            is_slow = isinstance(failed.__cause__, CallTimedOut)
            if len(rows) == 1 and (is_aside or not is_slow):
                self._tables.failed(next(iter(rows)), self._origin())
            raise

    async def _transaction(
        self,
        rows: Sequence[RowId],
        calls: Sequence[Callable[[Any], Awaitable[None]]],
        limit: float,
    ) -> bool:
        if not await self._change(partial(self._tables.have, rows)):
            return False
        for call in calls:
            if (error := await error_of(call, AppliedHandle(), limit)) is not None:
                raise FunctionFailed(error) from error
        return await self._change(partial(self._tables.apply, rows, self._origin()))

    async def stored_failures(self, shards: Collection[int]) -> Sequence[StoredFailure]:
        """See `Store.stored_failures`."""
        return await self._read(partial(self._tables.stored_failures, tuple(shards)))

    async def stored_waits(self, rows: Collection[RowId]) -> Mapping[RowId, StoredWait]:
        """See `Store.stored_waits`."""
        return await self._read(partial(self._tables.stored_waits, tuple(rows)))

    async def paused_topics(self) -> Mapping[str, str]:
        """See `Store.paused_topics`."""
        paused = await self._read(partial(self._tables.paused_topics, self._target))
        self._watch.learns(self._name, paused)
        return paused

    def _origin(self) -> Origin:
        return Origin(self._name, self._now())

    async def _read(self, apply: Callable[[], T]) -> T:
        return await self._wire.run(apply, DEADLINE, "reads cut")

    async def _change(self, apply: Callable[[], T]) -> T:
        return await self._wire.run(apply, DEADLINE, "changes cut")


class ModelLeaseTable:
    """The `LeaseTable` of one publisher; each statement takes `limit` seconds at most."""

    def __init__(self, tables: LeaseTables, wire: Wire, limit: float) -> None:
        self._tables = tables
        self._wire = wire
        self._limit = limit

    async def announce(self, owner: str, *, waits: bool) -> None:
        """See `LeaseTable.announce`."""
        await self._run(self._tables.announce(owner, waits=waits))

    async def withdraw(self, owner: str) -> None:
        """See `LeaseTable.withdraw`."""
        await self._run(self._tables.withdraw(owner))

    async def look(self) -> Snapshot:
        """See `LeaseTable.look`."""
        return await self._run(self._tables.look())

    async def renew(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """See `LeaseTable.renew`."""
        return await self._run(self._tables.renew(owner, epochs))

    async def renew_and_look(self, owner: str, epochs: Mapping[int, int]) -> Renewal | None:
        """See `LeaseTable.renew_and_look`."""
        try:
            return await self._run(self._tables.renew_and_look(owner, epochs))
        except psycopg.errors.SerializationFailure:
            return None

    async def release(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """See `LeaseTable.release`."""
        return await self._run(self._tables.release(owner, epochs))

    async def take(
        self, owner: str, epochs: Mapping[int, int], ended: Mapping[int, float]
    ) -> Collection[int]:
        """See `LeaseTable.take`."""
        return await self._run(self._tables.take(owner, epochs, ended))

    async def prune(self) -> None:
        """See `LeaseTable.prune`."""
        await self._run(self._tables.prune())

    def drop(self) -> None:
        """There is no connection to close."""

    async def _run(self, statement: Coroutine[Any, Any, T]) -> T:
        """Run a statement of the model, which hands over what to apply and waits for the result."""
        result = await self._wire.run(statement.send(None).apply, self._limit)
        try:
            statement.send(result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise AssertionError("a statement of the model is one step")
