"""Connections that end at a deadline and die with their caller.

psycopg answers a cancelled task by asking the server to cancel, and waits for
that; on a dead link this took ten seconds. Our connections drop the socket
instead: the attempt is over at once and its outcome is in doubt, which the
writer knows how to resolve.
"""

import asyncio
from functools import cached_property
from time import monotonic
from typing import Any

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen

_INTERVAL = 0.1  # seconds between looks for a signal, psycopg's own default

_TOO_LATE = "no answer from the database before the deadline; the connection is closed"


class _Base(psycopg.BaseConnection[Any]):
    """What both kinds have; `deadline` and `opened_at` are of the monotonic clock."""

    deadline: float | None = None
    opened_at: float = 0.0

    @cached_property
    def executions(self) -> dict[bytes, int]:
        """How often each statement of `exchange` ran here."""
        return {}

    @cached_property
    def encoding(self) -> str:
        """Python's name of the encoding that the server expects and sends."""
        return self.info.encoding


class Connection(_Base, psycopg.Connection[Any]):
    """A synchronous connection."""

    def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server; at the deadline close it, raise `OperationalError`."""
        try:
            left = _left(self.deadline, timeout)
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=left)
        except KeyboardInterrupt:
            self.pgconn.finish()
            raise
        except psycopg.OperationalError as error:
            if not _is_over(self.deadline):
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(_TOO_LATE) from error


class AsyncConnection(_Base, psycopg.AsyncConnection[Any]):
    """An asynchronous connection."""

    async def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server; at the deadline close it, raise `OperationalError`."""
        try:
            left = _left(self.deadline, timeout)
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=left
            )
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.pgconn.finish()
            raise
        except psycopg.OperationalError as error:
            if not _is_over(self.deadline):
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(_TOO_LATE) from error


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def _left(deadline: float | None, timeout: float | None) -> float | None:
    if deadline is None:
        return timeout
    left = max(0.0, deadline - monotonic())
    return left if timeout is None else min(left, timeout)
