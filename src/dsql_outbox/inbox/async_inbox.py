"""The inbox for asyncio."""

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from anyio import move_on_after

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.database.database import Database, used_by
from dsql_outbox.outbox.sessions.caller_session import FAIL_SECONDS, refuse_commit
from dsql_outbox.outbox.sessions.joinable import AsyncJoinable, async_session_of
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.loops import do_async, perform_async

from .inbox import TIMEOUT, once_call, open_statements
from .memory import REMEMBER, Order, Remembered, remember
from .once import Handled, OnGap
from .pruning import Pruning

if TYPE_CHECKING:
    from .prune_run import PruneRun

T = TypeVar("T")


class AsyncInbox:
    """As `Inbox`, for asyncio. It serves one event loop at a time."""

    def __init__(self, database: Database, consumer: str, *, max_connections: int = 10) -> None:
        self._statements = open_statements("AsyncInbox", database, consumer, max_connections)
        self._connections = AsyncConnections(
            "inbox", used_by("inbox", database), max_connections, keep_failed=True, max_idle=None
        )

    async def once(
        self,
        message: Remembered,
        function: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]],
        *,
        on_gap: OnGap = "run",
        timeout: float | None = TIMEOUT,
    ) -> Handled[T]:
        """Run the async `function` and remember the message, as `Inbox.once` does."""
        _require_function(function)
        given = (self._statements, self._connections)
        call = once_call(given, message, partial(_invoke, function), on_gap, timeout)
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


def _require_function(function: object) -> None:
    if not callable(function):
        raise wrong_type(
            "AsyncInbox.once takes an async function of a connection",
            function,
            "once(message, function)",
        )


async def _invoke(function: Callable[[Any], Awaitable[T]], connection: Any) -> T:
    awaitable = function(connection)
    if not inspect.isawaitable(awaitable):
        raise TypeError(
            "the function given to AsyncInbox.once returned nothing to await: nothing is "
            "stored; make it an `async def`, or give a plain function to Inbox.once"
        )
    return await awaitable
