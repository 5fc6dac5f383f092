"""Connections that end at a deadline and die with their caller.

psycopg answers a cancelled task by asking the server to cancel, and waits for
that; on a dead link this took ten seconds. Our connections drop the socket
instead: the attempt is over at once and its outcome is in doubt, which the
writer knows how to resolve.
"""

import asyncio
from time import monotonic
from typing import Any

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen

_INTERVAL = 0.1  # seconds between looks for a signal, psycopg's own default


class Connection(psycopg.Connection[Any]):
    """A synchronous connection; `deadline` is a time of the monotonic clock, or None."""

    deadline: float | None = None

    def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server; raises `OperationalError` at the deadline."""
        try:
            left = _left(self.deadline, timeout)
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=left)
        except KeyboardInterrupt:
            self.pgconn.finish()
            raise


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """An asynchronous connection; `deadline` is a time of the monotonic clock, or None."""

    deadline: float | None = None

    async def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server; raises `OperationalError` at the deadline."""
        try:
            left = _left(self.deadline, timeout)
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=left
            )
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.pgconn.finish()
            raise


def _left(deadline: float | None, timeout: float | None) -> float | None:
    if deadline is None:
        return timeout
    left = max(0.0, deadline - monotonic())
    return left if timeout is None else min(left, timeout)
