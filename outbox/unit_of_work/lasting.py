"""One connection that lasts: it is opened at its first use, and again after it was lost."""

from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import TypeVar

import psycopg

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.failure import RACES, FailureKind, accepts_no_writes, kind_of

T = TypeVar("T")


class LastingConnection:
    """A connection for work that comes one piece at a time: an operator's, a lease's, a probe's.

    It is closed at the end of a use that leaves its session unclean, and after every error whose
    kind is not in `keeps`. Such an error may be one of this session or server: after a failover,
    the next connection finds the new primary. It is also replaced before the server ends it.

    `timeout` limits the opening, and then each use, to so many seconds. With `read_only`, each
    transaction is READ ONLY. With `needs_primary`, a server that says that it accepts no writes
    is left before a statement is sent to it.
    """

    def __init__(
        self,
        database: Database,
        *,
        timeout: float | None = None,
        keeps: Collection[FailureKind] = RACES,
        read_only: bool = False,
        needs_primary: bool = False,
    ) -> None:
        self._database = database
        self._timeout = timeout
        self._keeps = keeps
        self._read_only = read_only
        self._needs_primary = needs_primary
        self.current: AsyncConnection | None = None
        self.waits_for_cluster = True
        """Whether an opening waits for a cluster that is waking up."""
        self.was_lost = False
        """Whether the last error came with the end of the connection."""

    async def use(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do one piece of work. Raises its error, or the one of a connection that cannot open."""
        try:
            return await work(await self._connect())
        except psycopg.Error as error:
            self.was_lost = self.current is not None and self.current.closed
            if kind_of(error) not in self._keeps:
                self.drop()
            raise
        finally:
            if self.current is not None and not self.current.is_clean:
                self.drop()

    def drop(self) -> None:
        """Close the connection immediately, without waiting for the server."""
        if self.current is not None:
            self.current.drop()
            self.current = None

    async def close(self) -> None:
        """Close the connection, and tell the server."""
        if self.current is not None:
            await self.current.close()
            self.current = None

    async def _connect(self) -> AsyncConnection:
        found = self.current
        # A function of the user may have closed it. One that leads to a server without writes
        # is left here, and not at its first error: a former primary answers a read with old rows.
        if found is not None and (
            found.closed or monotonic() >= found.retires_at or not self._is_welcome(found)
        ):
            self.drop()
        if self.current is None:
            self.current = await self._database.connect_async(
                timeout=self._timeout, waits_for_cluster=self.waits_for_cluster
            )
            await self.current.set_read_only(self._read_only or None)
        if not self._is_welcome(self.current):
            raise accepts_no_writes()
        if self._timeout is not None:
            self.current.deadline = monotonic() + self._timeout
        return self.current

    def _is_welcome(self, connection: AsyncConnection) -> bool:
        return connection.accepts_writes or not self._needs_primary
