"""psycopg connections with a deadline, which are closed when their caller is cancelled.

When a task is cancelled, psycopg sends a cancel request to the server and waits for the
answer. On a dead link this took ten seconds. These connections close the socket instead. The
attempt ends immediately with its outcome in doubt, which the writer resolves.
"""

import asyncio
import math
import os
import re
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cached_property
from threading import Event, Lock
from time import monotonic
from typing import Any, Self, TypeVar

import anyio
import psycopg
from psycopg import sql, waiting
from psycopg.abc import PQGen, PQGenConn
from psycopg.adapt import AdaptersMap
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn

from dsql_outbox.outbox.interrupt import is_interrupt

from .fork import held_forks

_INTERVAL = 0.1  # seconds between checks for a signal, psycopg's own default

_TOO_LATE = "no answer from the database before the deadline; the connection is closed"

_NOT_CONNECTED = "no connection to the database before the timeout"

_CLOSED = "the connection is closed"

_BUSY = "another exchange runs in this session: run one after the other"

_INSIDE = (
    "another statement of this connection did not end before the deadline: run none inside of its "
    "stream() or copy(), which would wait for itself"
)

_SAID_OF_READ_ONLY = (b"in_hot_standby", b"default_transaction_read_only")

_UTF8 = (b"UTF8", None)  # a pooler may not report the encoding

_INHERITED = "a connection belongs to the process that opened it: this is a forked child"

_COMMIT = re.compile(
    rb"\A\s*(?:/\*.*?\*/\s*|--[^\n]*\n\s*)*(?:COMMIT|END)\b", re.IGNORECASE | re.DOTALL
)
"""A statement that would store what code of the user is told to be not stored."""

C = TypeVar("C")


class _Connecting:
    """The limits of a block of `connecting_until`, and the generators that connect in it."""

    def __init__(self, deadline: float, abandoned: Event | None) -> None:
        self.steps: list[Generator[Any, Any, Any]] = []
        self._deadline = deadline
        self._abandoned = abandoned

    @property
    def may_go_on(self) -> bool:
        """Whether neither limit is reached."""
        is_abandoned = self._abandoned is not None and self._abandoned.is_set()
        return not is_abandoned and monotonic() < self._deadline


_connecting: ContextVar[_Connecting | None] = ContextVar("dsql_outbox_connecting", default=None)

_CURSORS = (psycopg.Cursor, psycopg.AsyncCursor)

BeforeSend = Callable[[int], None]
"""Called with the `TransactionStatus` before a statement is sent.

If it raises, the statement is not sent.
"""

OnError = Callable[[psycopg.Error, int], None]
"""Called with an error of a connection, and the `TransactionStatus` before the error."""


class _Session:
    """A session of libpq, shared by the connection that owns it and the one that was lent.

    One exchange runs at a time. libpq crashes the process if a thread closes a session while
    another one is in it. So `drop` closes a session in which no exchange runs. Otherwise it shuts
    the socket down, which ends the exchange soon, and the end of the exchange closes the session.

    An interrupt between `begin` and the block that ends with `end` leaves the session busy. Then
    it is not clean, and is closed as an object that nobody has.
    """

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._exchange = Lock()
        self._closing = Lock()
        self.is_dropped = False

    @property
    def is_busy(self) -> bool:
        """Whether an exchange runs."""
        return self._exchange.locked()

    def begin(self, *, may_wait: bool) -> None:
        """Begin an exchange. Raises `InterfaceError` if another one runs and it may not wait."""
        while not self._exchange.acquire(blocking=False):
            if self.is_dropped:
                raise psycopg.OperationalError(_CLOSED)
            if not may_wait:
                raise psycopg.InterfaceError(_BUSY)
            if self._exchange.acquire(timeout=_INTERVAL):
                return

    def end(self) -> None:
        """End the exchange, and close the session if that was to be done meanwhile."""
        self._exchange.release()
        if self.is_dropped:
            self.drop()

    def drop(self) -> None:
        """Close the session now or, if an exchange runs, at the end of it."""
        self.is_dropped = True  # first: from here on, the end of an exchange closes the session
        if self._exchange.acquire(blocking=False):
            try:
                self.finish()
            finally:
                self._exchange.release()
        else:
            self._shut_down()

    def finish(self) -> None:
        """Close the session. Only for the thread or task whose exchange runs."""
        self.is_dropped = True
        with self._closing:
            self._pgconn.finish()

    def _shut_down(self) -> None:
        """End the socket in both directions. It stays open, so its number stays ours."""
        with self._closing, suppress(psycopg.Error, OSError):
            number = self._pgconn.socket
            # libpq may close the socket meanwhile, and another one may get its number.
            with socket.socket(fileno=os.dup(number)) as found:
                if self._pgconn.socket == number:
                    found.shutdown(socket.SHUT_RDWR)


class _LentLock:
    """The lock that psycopg holds during a statement, of a connection that was lent.

    psycopg also holds it for all of `stream` and `copy`. A statement inside of these waits for
    itself, with psycopg's own lock for ever. This one is waited for until the deadline of the run.
    """

    def __init__(self, deadline: float | None) -> None:
        self._lock = Lock()
        self._deadline = deadline

    def __enter__(self) -> None:
        left = _left(self._deadline, None)
        if not self._lock.acquire(timeout=-1 if left is None else left):
            raise psycopg.OperationalError(_INSIDE)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _LentAsyncLock:
    """As `_LentLock`, for tasks."""

    def __init__(self, deadline: float | None) -> None:
        self._lock = asyncio.Lock()
        self._deadline = deadline

    async def __aenter__(self) -> None:
        if self._lock.locked():
            with anyio.move_on_after(_left(self._deadline, None)):
                await self._lock.acquire()
                return
            raise psycopg.OperationalError(_INSIDE)
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class _ConnectionBase(psycopg.BaseConnection[Any]):
    """The attributes and methods that both kinds of connection share.

    A connection belongs to the process that opened it. In a forked child it
    appears closed. The child sends nothing on it and does not end the parent's
    session.
    """

    deadline: float | None = None
    """Time of the monotonic clock at which every exchange ends. None: no deadline."""
    retires_at: float = math.inf
    """Time of the monotonic clock until which it may be used: the server closes it soon after."""
    kept_at: float = 0.0
    """Time of the wall clock at which the writer last put it aside for reuse."""
    was_used: bool = False
    """Whether a call of the writer has used it."""
    role_path: bool = False
    """Whether the session uses the search path of its role instead of ``pg_catalog`` alone."""
    prepares: bool = True
    """Whether `exchange` prepares statements that run often."""
    before_send: BeforeSend | None = None
    """May refuse a statement. Every exchange of psycopg passes through `wait`, which calls it."""
    on_error: OnError | None = None
    """Receives each error of the database or driver before the code that ran the statement does."""
    is_over: bool = False
    """Whether it was lent, and the block that lent it has ended."""
    was_busy: bool = False
    """Whether an exchange ran on it when that block ended."""
    handlers: tuple[Any, Any] = (None, None)
    """The handlers of libpq's object before this one took its session over from a pool."""
    takes_local_settings: bool = False
    """Whether the server may take settings that end with their transaction, as a run's mark."""

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        return _until_deadline(super()._connect_gen(conninfo))

    def __init__(self, pgconn: PGconn, *args: Any) -> None:
        self._pid = os.getpid()
        self._session = _Session(pgconn)
        super().__init__(pgconn, *args)

    @property
    def is_inherited(self) -> bool:
        """Whether another process, a parent of this one, opened the connection."""
        return os.getpid() != self._pid

    @property
    def closed(self) -> bool:
        """Whether the connection is unusable: closed, inherited by a fork, or lent and returned."""
        return self.is_over or self.is_inherited or self._session.is_dropped or super().closed

    @property
    def was_closed(self) -> bool:
        """Whether `close` was called on it, while it was open."""
        return self._closed

    @contextmanager
    def lent(self, before_send: BeforeSend, on_error: OnError) -> Generator[Self]:
        """Yield another object for this session, for code of the user during the block.

        Factories, adapters and blocks of the user's code end with this object. After the block
        `before_send` still judges each statement on it, and must refuse it. If a statement
        runs at the end of the block, as in another thread, the session is closed.
        """
        # psycopg's constructor takes the session over: it sets the handlers of the libpq object.
        notices = self.pgconn.notice_handler, self.pgconn.notify_handler
        prepared = self.prepare_threshold, self.prepared_max
        lent: Any = type(self)(self.pgconn)
        lent.share(self)
        lent.before_send, lent.on_error = before_send, on_error
        if lent.cursor_factory in _CURSORS:
            lent.cursor_factory = lent.lent_cursor
        lent.lock = lent.lent_lock(self.deadline)
        try:
            yield lent
        finally:
            # In this order: an exchange that begins from now on is refused.
            lent.is_over = True
            if self._session.is_busy:
                lent.was_busy = True
                self.drop()
            self.prepare_threshold, self.prepared_max = prepared
            self.pgconn.notice_handler, self.pgconn.notify_handler = notices

    @classmethod
    def over(cls, lent: Any) -> Self:
        """Return another object for the session of a connection that a pool has lent.

        It has the factories and adapters of that connection, until `leave`.
        """
        handlers = lent.pgconn.notice_handler, lent.pgconn.notify_handler
        made = cls(lent.pgconn)
        made.copy_settings(lent)
        made.handlers, made.prepares = handlers, False  # that connection prepares itself
        return made

    def leave(self) -> None:
        """Leave the session to the connection of the pool."""
        self.is_over = True
        self.pgconn.notice_handler, self.pgconn.notify_handler = self.handlers

    def copy_settings(self, owner: Any) -> None:
        """Take over what code of the user sees of a connection for the same session."""
        self._autocommit, self._read_only = owner.autocommit, owner.read_only
        self._isolation_level, self._deferrable = owner.isolation_level, owner.deferrable
        self._prepared = owner._prepared  # noqa: SLF001 - its names are those of the session
        self._adapters = AdaptersMap(owner.adapters) if owner._adapters else None  # noqa: SLF001
        self.row_factory, self.cursor_factory = owner.row_factory, owner.cursor_factory

    def share(self, owner: "_ConnectionBase") -> None:
        """Take over the state of the session from the connection that owns it."""
        self.copy_settings(owner)
        self._session = owner._session  # noqa: SLF001 - of the same class
        self.executions, self.due, self.prepares = owner.executions, owner.due, owner.prepares
        self.deadline, self.role_path = owner.deadline, owner.role_path

    @property
    def is_lent(self) -> bool:
        """Whether code of the user got it for a transaction of the library."""
        return self.before_send is not None

    @property
    def has_open_block(self) -> bool:
        """Whether a block of `transaction()` is open."""
        return self._num_transactions > 0  # psycopg shows it nowhere else

    def judge(self, query: Any) -> None:
        """Let `before_send` refuse a COMMIT, which would store what is told to be not stored."""
        strings = getattr(query, "strings", None)  # of a template, from Python 3.14 on
        text = query.as_bytes(self) if isinstance(query, sql.Composable) else query
        text = " ".join(strings) if strings else text
        text = text.encode() if isinstance(text, str) else text
        if isinstance(text, bytes) and is_commit(text):
            self.refuse_end()

    def refuse_end(self) -> None:
        """Let `before_send` refuse the end of the transaction, of a connection that was lent."""
        if self.before_send is not None:
            self.before_send(TransactionStatus.IDLE)

    def drop(self) -> None:
        """Close the session immediately, and end an exchange that runs in it."""
        if not self.is_inherited:
            self._session.drop()

    def finish(self) -> None:
        """Close the session in the middle of its own exchange."""
        if not self.is_inherited:
            self._session.finish()

    def abandon(self, exchange: PQGen[Any]) -> None:
        """Close the session in the middle of an exchange, and end the exchange."""
        self.finish()
        with suppress(psycopg.Error):  # the end of a pipeline looks for more answers
            exchange.close()

    def send(self, text: bytes, values: Sequence[bytes | None]) -> None:
        """Send a statement, and do not wait for its answer, which `answer` of `exchange` takes.

        Only for a session that nobody else has. Raises the driver's errors.
        """
        self._begin(may_wait=False)
        try:
            self.pgconn.send_query_params(text, values)
            self.pgconn.flush()  # what does not fit into the socket leaves with `answer`
        finally:
            self._session.end()

    def _begin(self, *, may_wait: bool) -> int:
        """Begin an exchange, unless `before_send` refuses it. Return the status before it."""
        if self.is_inherited:
            raise psycopg.OperationalError(_INHERITED)
        if self.is_over:
            self._admit()  # at once: it must not wait for the exchange of another run
        self._session.begin(may_wait=may_wait)
        try:
            # A run cannot end from here to the end of the exchange, in which psycopg encodes the
            # parameters. That may take long.
            return self._admit()
        except BaseException:
            self._session.end()
            raise

    def _admit(self) -> int:
        before = self.pgconn.transaction_status
        if self.before_send is not None:
            self.before_send(before)
        return before

    @property
    def accepts_writes(self) -> bool:
        """Whether the server does not say that it is a standby, or read-only by default.

        PostgreSQL reports both when a session begins, and again when they change. Poolers and
        Aurora DSQL may report neither; then the first write finds out.
        """
        said = map(self.pgconn.parameter_status, _SAID_OF_READ_ONLY)
        return b"on" not in said

    @property
    def begin(self) -> bytes:
        """The BEGIN statement, with the connection's isolation level if one is set."""
        return self._get_tx_start_command()

    @cached_property
    def executions(self) -> dict[bytes, int]:
        """How often `exchange` ran each statement on this connection, by statement name."""
        return {}

    @cached_property
    def due(self) -> dict[bytes, bytes]:
        """The names and texts of what `exchange` has run often enough to prepare it."""
        return {}

    @property
    def is_clean(self) -> bool:
        """Whether another piece of work may have the session. If not, it has to be closed.

        It is idle and in no pipeline, no exchange runs in it, and it has the client encoding that
        it was opened with, UTF-8.
        The shelf and the lasting connection ask this at the end of each work. Nothing else
        judges a session.
        """
        found = self.pgconn
        return (
            not self.closed
            and not self._session.is_busy
            and found.transaction_status == TransactionStatus.IDLE
            and found.pipeline_status == PipelineStatus.OFF
            and found.parameter_status(b"client_encoding") in _UTF8
        )


class _LentCursor(psycopg.Cursor[Any]):
    """The cursor of a synchronous connection that was lent."""

    def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        own: Any = self.connection
        own.judge(query)
        return super().execute(query, *args, **options)


class _LentAsyncCursor(psycopg.AsyncCursor[Any]):
    """The cursor of an asynchronous connection that was lent."""

    async def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        own: Any = self.connection
        own.judge(query)
        return await super().execute(query, *args, **options)


class Connection(_ConnectionBase, psycopg.Connection[Any]):
    """A synchronous connection."""

    lent_cursor = _LentCursor
    lent_lock = _LentLock

    def close(self) -> None:
        """Close the session, as psycopg does; if a thread is in it, as soon as it leaves."""
        if not self.closed:
            self._closed = True
            self.drop()

    def commit(self) -> None:
        """Commit. Refused on a connection that was lent."""
        self.refuse_end()
        super().commit()

    def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server.

        Raises `OperationalError` at the deadline, and closes the connection.
        """
        before = self._begin(may_wait=True)
        try:
            left = _left(self.deadline, timeout)
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=left)
        except psycopg.Error as error:
            found = _error_to_raise(self, error, before)
            raise found from found.__cause__
        except BaseException as error:
            if is_interrupt(error):
                self.abandon(gen)
            raise
        finally:
            self._session.end()


class AsyncConnection(_ConnectionBase, psycopg.AsyncConnection[Any]):
    """An asynchronous connection."""

    lent_cursor = _LentAsyncCursor
    lent_lock = _LentAsyncLock

    async def close(self) -> None:
        """Close the session, as psycopg does; if a task is in it, as soon as it leaves."""
        if not self.closed:
            self._closed = True
            self.drop()

    async def commit(self) -> None:
        """Commit. Refused on a connection that was lent."""
        self.refuse_end()
        await super().commit()

    async def wait(
        self, gen: PQGen[Any], interval: float = _INTERVAL, timeout: float | None = None
    ) -> Any:
        """Run one exchange with the server.

        Raises `OperationalError` at the deadline, and closes the connection.
        """
        before = self._begin(may_wait=False)
        try:
            left = _left(self.deadline, timeout)
            return await waiting.wait_async(
                gen, self.pgconn.socket, interval=interval, timeout=left
            )
        except psycopg.Error as error:
            found = _error_to_raise(self, error, before)
            raise found from found.__cause__
        except BaseException as error:
            if is_interrupt(error):
                self.abandon(gen)
            raise
        finally:
            self._session.end()


def is_commit(text: bytes) -> bool:
    """Return whether a text begins with a statement that would commit."""
    return _COMMIT.match(text) is not None


@contextmanager
def connecting_until(deadline: float, abandoned: Event | None = None) -> Generator[None]:
    """Apply a deadline, a time of the monotonic clock, to connections opened in the block.

    A connection that is not open by then, or when `abandoned` is set, raises
    `OperationalError`. The error may come 0.1 s late, because psycopg resumes a connection
    attempt every 0.1 s. psycopg's own timeout follows libpq: whole seconds, at least two. In
    synchronous code the look-up of the host name is not interrupted, because libpq blocks on it.
    """
    connecting = _Connecting(deadline, abandoned)
    token = _connecting.set(connecting)
    try:
        yield
    finally:
        _connecting.reset(token)
        for steps in connecting.steps:
            steps.close()  # else the socket of a cancelled task stays open until collected


def not_connected() -> psycopg.OperationalError:
    """Return the error for a connection that was not open in time."""
    return psycopg.OperationalError(_NOT_CONNECTED)


def _until_deadline(steps: PQGenConn[C]) -> PQGenConn[C]:
    """Wrap the generator that connects to one address, so that it stops at the deadline."""
    connecting = _connecting.get()
    if connecting is None:
        return (yield from steps)
    connecting.steps.append(steps)
    ready: Any = None
    try:
        while connecting.may_go_on:
            with held_forks:
                wanted = steps.send(ready)
            ready = yield wanted
    except StopIteration as connected:
        made: C = connected.value
        return made
    raise not_connected()


def _error_to_raise(
    connection: Connection | AsyncConnection, error: psycopg.Error, before: int
) -> psycopg.Error:
    """Return the error to raise, after a call of `on_error`.

    At the deadline, close the connection and replace psycopg's error by one that
    names the deadline.
    """
    if isinstance(error, psycopg.OperationalError) and _is_over(connection.deadline):
        connection.finish()
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
