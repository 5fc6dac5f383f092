"""The inbox for asyncio."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from anyio import move_on_after

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.database.database import Database, used_by
from dsql_outbox.outbox.sessions.caller_session import FAIL_SECONDS, refuse_commit
from dsql_outbox.outbox.sessions.joinable import AsyncJoinable, async_session_of
from dsql_outbox.outbox.sessions.lent_sessions import AsyncSessionSource
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.loops import do_async, perform_async

from .inbox import TIMEOUT, lent_by, open_statements, require_options
from .memory import REMEMBER, Order, Remembered, remember
from .once import Handled, OnceCall, OnGap, Run, causing
from .pruning import Pruning

if TYPE_CHECKING:
    import psycopg
    from typing_extensions import TypeVar as DefaultedTypeVar

    from .prune_run import PruneRun

    S = DefaultedTypeVar("S", default=psycopg.AsyncConnection[Any])
else:
    S = TypeVar("S")

T = TypeVar("T")
M = TypeVar("M", bound=Remembered)


class AsyncInbox(Generic[S]):
    """As `Inbox`, for asyncio. It serves one event loop at a time.

    `sessions` is an async_sessionmaker on asyncpg or psycopg, or psycopg's AsyncConnectionPool.
    """

    @overload
    def __init__(
        self: "AsyncInbox[psycopg.AsyncConnection[Any]]",
        database: Database,
        consumer: str,
        *,
        max_connections: int = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        database: Database,
        consumer: str,
        *,
        sessions: AsyncSessionSource[S],
        max_connections: int = ...,
    ) -> None: ...

    def __init__(
        self, database: Database, consumer: str, *, sessions: Any = None, max_connections: int = 10
    ) -> None:
        self._statements = open_statements("AsyncInbox", database, consumer, max_connections)
        self._connections = AsyncConnections(
            "inbox", used_by("inbox", database), max_connections, keep_failed=True, max_idle=None
        )
        self._sessions = lent_by(self._connections, sessions, database, is_async=True)

    async def once(
        self,
        message: Remembered,
        function: Callable[[S], Awaitable[T]],
        *,
        on_gap: OnGap = "run",
        timeout: float | None = TIMEOUT,
    ) -> Handled[T]:
        """Run the async `function` and remember the message, as `Inbox.once` does."""
        _require_function("once", function)
        invoke = partial(_invoke_each, "once", lambda session, _: function(session))
        (handled,) = await self._handle("once", [message], invoke, on_gap, timeout)
        if isinstance(handled, Exception):
            raise handled
        return handled

    async def once_many(
        self,
        messages: Iterable[M],
        function: Callable[[S, M], Awaitable[T]],
        *,
        on_gap: OnGap = "run",
        timeout: float | None = TIMEOUT,
    ) -> list[Handled[T] | Exception]:
        """Run the async `function` for each message, as `Inbox.once_many` does."""
        _require_function("once_many", function)
        invoke = partial(_invoke_each, "once_many", function)
        return await self._handle("once_many", list(messages), invoke, on_gap, timeout)

    async def _handle(
        self,
        method: str,
        messages: Sequence[Remembered],
        invoke: Callable[[Run[T], Any], object],
        on_gap: OnGap,
        timeout: float | None,
    ) -> list[Handled[T] | Exception]:
        require_options(on_gap, timeout)
        parts = (self._statements, self._sessions, method, messages, invoke)
        call = OnceCall(*parts, on_gap=on_gap, timeout=timeout)
        return await self._connections.perform(call.program())

    async def remember(self, connection: AsyncJoinable, message: Remembered) -> Order | None:
        """Remember a message in your own transaction, as `Inbox.remember` does."""
        program = remember(connection, async_session_of, self._statements, message)
        try:
            return await perform_async(program, do_async)
        except BaseException as error:
            refusal = refuse_commit(connection, error, REMEMBER, async_session_of)
            # Shielded: the scope of a cancelled call would cancel this as well.
            with move_on_after(FAIL_SECONDS, shield=True):
                await perform_async(refusal, do_async)
            raise

    def prune(self, older_than: timedelta, *, rate: float | None = None) -> "PruneRun":
        """Forget the messages that were handled longer ago, as `Inbox.prune` does.

        Returns a run: `await` it to do all, or iterate over it to get the progress after each
        transaction; its `stop` ends it before the next one. `rate` is the largest number of
        messages to forget per second, on average; None is no limit. Raises `SettingsError` for
        one that is not above 0.
        """
        from .prune_run import PruneRun  # noqa: PLC0415 - operators' tools: consumers start without

        pruning = Pruning(self._statements, self._connections, older_than)
        return PruneRun(pruning, self._connections.perform, rate)

    async def close(self) -> None:
        """Close the connections. A call that is in flight ends as it would have ended."""
        self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _require_function(method: str, function: object) -> None:
    if not callable(function):
        raise wrong_type(
            f"AsyncInbox.{method} takes an async function of a connection or session",
            function,
            f"{method}(.., function)",
        )


async def _invoke_each(
    method: str, function: Callable[[Any, Any], Awaitable[T]], run: Run[T], session: Any
) -> None:
    for entry in run.turns():
        with causing(entry.message):
            awaitable = function(session, entry.message)
            if not inspect.isawaitable(awaitable):
                raise TypeError(
                    f"the function given to AsyncInbox.{method} returned nothing to await: nothing "
                    f"is stored; make it an `async def`, or give a plain function to Inbox.{method}"
                )
            entry.value = await awaitable
