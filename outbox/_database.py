"""The way to the database: settings first, connections on first use."""

import math
import re
import threading
from time import monotonic, sleep
from typing import Any, Final

import anyio
import psycopg
from psycopg_pool import AsyncConnectionPool

from ._connection import AsyncConnection, Connection, connecting_until, not_connected
from ._errors import SettingsError
from ._opens import OPENS_PER_SECOND, OpenRate
from ._settings import require_positive
from ._target import Isolation, target_of

DEFAULT_SCHEMA: Final = "outbox"

_MAX_LIFETIME: Final = 55 * 60.0
"""Seconds; DSQL closes connections after 60 minutes (AWS, Aurora DSQL quotas)."""

_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Database:
    """A database that holds the outbox tables, or will.

    Making one does no I/O. `url` is ``postgresql://..`` or
    ``dsql://role@cluster.dsql.region.on.aws/postgres``; `schema` names the
    database schema of our tables. `isolation` sets the level of every
    connection on PostgreSQL (None: the server's default; both levels are
    right). `connect_timeout` is seconds an address (libpq: whole ones, at least 2);
    `opens_per_second` limits new connections.

    Raises `SettingsError` for a URL or name that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        isolation: Isolation | None = None,
        connect_timeout: float = 10.0,
        opens_per_second: float = OPENS_PER_SECOND,
    ) -> None:
        require_positive(
            "Database",
            {"connect_timeout": connect_timeout, "opens_per_second": opens_per_second},
        )
        if not _SCHEMA_NAME.fullmatch(schema):
            raise SettingsError(
                f"schema {schema!r} must be lower-case letters, digits and _, "
                "must not start with a digit, and may have 63 characters at most"
            )
        self.schema = schema
        self._target = target_of(url, isolation)
        self._connect_timeout = connect_timeout
        self._opens = OpenRate(opens_per_second)
        self._opens_lock = threading.Lock()

    def connect(self, *, timeout: float | None = None) -> Connection:
        """Open one connection in autocommit mode; `timeout` is seconds for all of it.

        Raises the driver's `OperationalError` if that fails.
        """
        deadline = monotonic() + (math.inf if timeout is None else timeout)
        sleep(self._reserve_open(timeout))
        with connecting_until(deadline):
            connection = Connection.connect(**self._parameters(self._target.parameters()))
        connection.opened_at = monotonic()
        return connection

    async def connect_async(self, *, timeout: float | None = None) -> AsyncConnection:
        """Open one connection in autocommit mode; `timeout` is seconds for all of it.

        Raises the driver's `OperationalError` if that fails.
        """
        with connecting_until(math.inf), anyio.move_on_after(timeout):
            await anyio.sleep(self._reserve_open(timeout))
            found = await self._target.parameters_async()
            connection = await AsyncConnection.connect(**self._parameters(found))
            connection.opened_at = monotonic()
            return connection
        raise not_connected()

    def pool_async(self, *, max_size: int) -> AsyncConnectionPool[AsyncConnection]:
        """A pool that keeps itself connected, for those who run long; not opened yet."""

        async def parameters() -> dict[str, Any]:
            return self._parameters(await self._target.parameters_async())

        return AsyncConnectionPool(
            connection_class=AsyncConnection,
            kwargs=parameters,
            min_size=1,
            max_size=max_size,
            max_lifetime=_MAX_LIFETIME,
            open=False,
            name="dsql-outbox",
        )

    def _reserve_open(self, timeout: float | None) -> float:
        """Seconds to wait for the turn to connect."""
        with self._opens_lock:
            wait = self._opens.reserve(monotonic())
        if timeout is not None and wait > timeout:
            raise psycopg.OperationalError(
                f"too many connections are opened at once: the next may be in {wait:.1f} s, "
                f"after the timeout of {timeout:.1f} s"
            )
        return wait

    def _parameters(self, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"autocommit": True, "connect_timeout": math.ceil(self._connect_timeout)}

    def __repr__(self) -> str:
        return f"Database({self._target}, schema={self.schema!r})"
