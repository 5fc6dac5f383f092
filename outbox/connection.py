"""Connections that end at a deadline and die with their caller.

psycopg answers a cancelled task by asking the server to cancel, and waits for
that; on a dead link this took ten seconds. Our connections drop the socket
instead: the attempt is over at once and its outcome is in doubt, which the
writer knows how to resolve.
"""

import asyncio
import math
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from time import monotonic
from typing import Any, Self, TypeVar

import psycopg
from psycopg import IsolationLevel, waiting
from psycopg.abc import PQGen, PQGenConn

_INTERVAL = 0.1  # seconds between looks for a signal, psycopg's own default

_TOO_LATE = "no answer from the database before the deadline; the connection is closed"

_NOT_CONNECTED = "no connection to the database before the timeout"

_BEGIN = {
    IsolationLevel.READ_COMMITTED: b"BEGIN ISOLATION LEVEL READ COMMITTED",
    IsolationLevel.REPEATABLE_READ: b"BEGIN ISOLATION LEVEL REPEATABLE READ",
}

_INHERITED = "a connection belongs to the process that opened it: this is a forked child"

C = TypeVar("C")


class _Connecting:
    """When connections in the making must be there, and the steps that make them."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.steps: list[Generator[Any, Any, Any]] = []


_connecting: ContextVar[_Connecting | None] = ContextVar("dsql_outbox_connecting", default=None)

BeforeSend = Callable[[int], None]
"""Is told the `TransactionStatus` before anything is sent; what it raises keeps that back."""

OnError = Callable[[psycopg.Error, int], None]
"""Is told an error of a connection, and the `TransactionStatus` before it."""


class _ConnectionBase(psycopg.BaseConnection[Any]):
    """What both kinds have; `deadline` and `retires_at` are of the monotonic clock.

    After `retires_at` it should be used no more: the server is about to close it.

    `prepares`: statements that run often are prepared (`exchange`).

    `before_send` can refuse whatever is to be sent, and `on_error` is told every
    error of the database or the driver before the code that runs the statement
    meets it: all that psycopg does goes through `wait`.
    `kept_at` is of the wall clock: when it was last put aside. `role_path`: its
    session has the search path of its role, not ours.

    It is of the process that opened it: a forked child sees it closed, and neither
    sends anything on it nor ends the parent's session.
    """

    deadline: float | None = None
    retires_at: float = math.inf
    kept_at: float = 0.0
    role_path: bool = False
    prepares: bool = True
    before_send: BeforeSend | None = None
    on_error: OnError | None = None

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        return _until_deadline(super()._connect_gen(conninfo))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pid = os.getpid()

    @property
    def is_inherited(self) -> bool:
        """Whether this is the forked child of the process that opened it."""
        return os.getpid() != self._pid

    @property
    def closed(self) -> bool:
        """Whether it can be used no more."""
        return self.is_inherited or super().closed

    def drop(self) -> None:
        """Close it at once: nothing is sent that could wait for an answer."""
        if not self.is_inherited:
            self.pgconn.finish()

    def _require_own(self) -> None:
        if self.is_inherited:
            raise psycopg.OperationalError(_INHERITED)

    @property
    def begin(self) -> bytes:
        """The statement that begins a transaction, at the connection's isolation level if set."""
        level = self.isolation_level
        return b"BEGIN" if level is None else _BEGIN[level]

    @cached_property
    def executions(self) -> dict[bytes, int]:
        """How often each statement of `exchange` ran here."""
        return {}

    @cached_property
    def encoding(self) -> str:
        """Python's name of the encoding that the server expects and sends."""
        return self.info.encoding


class Connection(_ConnectionBase, psycopg.Connection[Any]):
    """A synchronous connection."""

    def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server; at the deadline close it, raise `OperationalError`."""
        self._require_own()
        before = self.pgconn.transaction_status
        if self.before_send is not None:
            self.before_send(before)
        try:
            left = _left(self.deadline, timeout)
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=left)
        except KeyboardInterrupt:
            self.drop()
            raise
        except psycopg.Error as error:
            told = _told(self, error, before)
            raise told from told.__cause__


class AsyncConnection(_ConnectionBase, psycopg.AsyncConnection[Any]):
    """An asynchronous connection."""

    async def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server; at the deadline close it, raise `OperationalError`."""
        self._require_own()
        before = self.pgconn.transaction_status
        if self.before_send is not None:
            self.before_send(before)
        try:
            left = _left(self.deadline, timeout)
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=left
            )
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.drop()
            raise
        except psycopg.Error as error:
            told = _told(self, error, before)
            raise told from told.__cause__


@contextmanager
def connecting_until(deadline: float) -> Generator[None]:
    """End what connects in here at a time of the monotonic clock, and close what did not.

    psycopg's own limit follows libpq: whole seconds, and two at least. It goes on
    with a connection every 0.1 s, so that late the end may be. Only the look-up
    of the host's name is not cut in threads: libpq waits for it.
    """
    connecting = _Connecting(deadline)
    token = _connecting.set(connecting)
    try:
        yield
    finally:
        _connecting.reset(token)
        for steps in connecting.steps:
            steps.close()  # a cancelled task would leave its socket to the garbage collector


def not_connected() -> psycopg.OperationalError:
    """The error of a connection that was not made in time."""
    return psycopg.OperationalError(_NOT_CONNECTED)


def _until_deadline(steps: PQGenConn[C]) -> PQGenConn[C]:
    """What psycopg drives to connect to one address."""
    connecting = _connecting.get()
    if connecting is None:
        return (yield from steps)
    connecting.steps.append(steps)
    ready: Any = None
    try:
        while monotonic() < connecting.deadline:
            ready = yield steps.send(ready)
    except StopIteration as connected:
        made: C = connected.value
        return made
    raise not_connected()


def _told(
    connection: Connection | AsyncConnection, error: psycopg.Error, before: int
) -> psycopg.Error:
    """The error to raise: at the deadline the connection is closed, and another one says so."""
    if isinstance(error, psycopg.OperationalError) and _is_over(connection.deadline):
        connection.drop()
        late = psycopg.OperationalError(_TOO_LATE)
        late.__cause__, error = error, late
    if connection.on_error is not None:
        connection.on_error(error, before)
    return error


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def _left(deadline: float | None, timeout: float | None) -> float | None:
    if deadline is None:
        return timeout
    left = max(0.0, deadline - monotonic())
    return left if timeout is None else min(left, timeout)
