"""The statements of the relay on the outbox and its failures."""

from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import psycopg

from dsql_outbox.outbox import (
    CONFLICTS,
    MAX_TRANSACTION_ROWS,
    AsyncConnection,
    Database,
    OneProcess,
    SchemaError,
    kind_of,
    plain_array,
    subject_key,
)
from dsql_outbox.publisher.session import OperatorSession
from dsql_outbox.schema import statement

from .burial import Burial
from .cursors import RowPlace
from .outbox_rows import OutboxRow, RowId, rows_of
from .selection import Hold

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

_TRIES: Final = 4
"""A conflict on a statement of ours is rare and passes: nobody else changes these rows."""


class Store:
    """Reads and settles outbox rows; every call is one autocommit statement.

    `statements` counts the statements that were run, `deleted` the rows that were
    deleted. All methods raise the driver's errors.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process = OneProcess("a publisher's connection pool")
        self._burying = OperatorSession(database)  # opened for the first dead letter
        self._burial = Burial(self._burying)
        self.statements = 0
        self.deleted = 0
        self._pool: AsyncConnectionPool[AsyncConnection] = database.pool_async(max_size=2)

    async def open(self) -> None:
        """Connect.

        Raises `SchemaError` if the tables are missing or there are no shards.
        """
        # A pool hides the reason why it cannot connect, so connect without it first.
        await self._require_shards()
        await self._pool.open(wait=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._burying.close()
        await self._pool.close()

    async def holds(self, shards: Collection[int]) -> dict[str, Hold]:
        """The failed messages of some shards, by key."""
        found = await self._run("failure_list", {"shards": plain_array(shards)})
        now = monotonic()
        holds: dict[str, Hold] = {}
        for shard, position, event_id, attempts, subject_type, subject_id, seconds in found:
            hold = Hold(RowId(shard, position, str(event_id)), attempts, now + seconds)
            holds[subject_key(subject_type, subject_id)] = hold
        return holds

    async def read(
        self, starts: Mapping[int, RowPlace], limits: Mapping[int, int], byte_limit: int
    ) -> list[OutboxRow]:
        """The next rows of each shard, in order; `byte_limit` is per shard."""
        found = await self._run(
            "outbox_read",
            {
                "shards": plain_array(starts),
                "positions": plain_array(place.position for place in starts.values()),
                "event_ids": plain_array(place.event_id for place in starts.values()),
                "limits": plain_array(limits[shard] for shard in starts),
                "bytes": byte_limit,
            },
        )
        return rows_of(found)

    async def delete(self, rows: Collection[RowId]) -> None:
        """Delete rows that the broker has acknowledged."""
        self.deleted += await self._count(
            "outbox_delete",
            {
                "shards": plain_array(row.shard for row in rows),
                "positions": plain_array(row.position for row in rows),
                "event_ids": plain_array(row.event_id for row in rows),
            },
        )

    async def bury(self, row: RowId, *, error: str, attempts: int) -> None:
        """Move a row to the dead letters."""
        self._process.require()
        self.statements += 1
        await self._burial.bury(row, error=error, attempts=attempts)

    async def record_failure(
        self, row: RowId, *, error: str, attempts: int, seconds: float | None
    ) -> None:
        """Record that a row failed and waits for `seconds`, or for an operator if that is None."""
        await self._run(
            "failure_record",
            {**row._asdict(), "error": error, "attempts": attempts, "seconds": seconds},
        )

    async def forget_failures(self, rows: Collection[RowId]) -> None:
        """Delete the failures of rows that were delivered after all."""
        await self._run(
            "failure_forget",
            {
                "positions": plain_array(row.position for row in rows),
                "event_ids": plain_array(row.event_id for row in rows),
            },
        )

    async def is_done(self) -> bool:
        """Whether no message waits in any shard, except for those that wait for an operator."""
        ((waiting,),) = await self._run("outbox_waiting", {})
        return not waiting

    async def sweep(self) -> None:
        """Delete failures whose message no longer exists, as many as one transaction may change."""
        query = statement("failure_sweep", self._database.schema, limit=MAX_TRANSACTION_ROWS)
        await self._execute(query, {})

    async def _require_shards(self) -> None:
        session = OperatorSession(self._database)  # whose conflict is tried again
        try:
            ((shards,),) = await session.rows("shard_count", {})
        finally:
            await session.close()
        if not shards:
            raise SchemaError(
                f"schema {self._database.schema} has no shards: run `dsql-outbox schema apply`"
            )

    async def _run(self, name: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a statement; returns its rows, if any."""
        rows, _ = await self._execute(statement(name, self._database.schema), parameters)
        return rows

    async def _count(self, name: str, parameters: dict[str, Any]) -> int:
        """Run a statement; returns the number of changed rows."""
        _, count = await self._execute(statement(name, self._database.schema), parameters)
        return count

    async def _execute(
        self, query: bytes, parameters: dict[str, Any]
    ) -> tuple[Sequence[Sequence[Any]], int]:
        self._process.require()
        for tries_left in reversed(range(_TRIES)):
            try:
                self.statements += 1
                async with self._pool.connection() as connection:
                    cursor = await connection.execute(query, parameters)
                    rows = await cursor.fetchall() if cursor.description else []
                    return rows, cursor.rowcount
            except psycopg.Error as error:
                if kind_of(error) not in CONFLICTS or not tries_left:
                    raise
        raise AssertionError("unreachable")
