"""Connections for tasks of asyncio, and the loop that performs a program in a task."""

import asyncio
from contextvars import Context
from typing import Any, Final, TypeVar

import anyio

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.unit_of_work.loops import do_async, perform_async
from dsql_outbox.outbox.unit_of_work.primitives import Open, Primitive, Program, Sleep

from .lender import Lender, Owner, require_time, seconds_left
from .shelf import PAUSE, Opening, Shelf, Waiter

T = TypeVar("T")

_BY_TRIO: Final = {
    "writer": "a Writer in a thread, as by trio.to_thread.run_sync(writer.write, event)",
    "inbox": "an Inbox in a thread, as by trio.to_thread.run_sync(inbox.once, message, function)",
}


def running_loop(owner: Owner) -> asyncio.AbstractEventLoop:
    """Return the running event loop. Raises `OutboxError` outside asyncio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise OutboxError(
            f"an Async{owner.title()} runs on asyncio, as psycopg does, and no event loop of "
            f"asyncio runs here: with trio, use {_BY_TRIO[owner]}"
        ) from error


class _TaskWaiter(Waiter[AsyncConnection]):
    """A call in a task."""

    def __init__(self, *, fresh: bool, role_path: bool, deadline: float | None) -> None:
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        super().__init__(self._take_turn, fresh=fresh, role_path=role_path, deadline=deadline)

    @property
    def is_gone(self) -> bool:
        return self.turn.cancelled()

    def _take_turn(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)


class AsyncConnections(Lender[AsyncConnection]):
    """Connections for tasks of asyncio. Each opening has a task of its own.

    They serve one event loop at a time. After it has stopped they may serve another.
    """

    def _start_empty(self) -> None:
        super()._start_empty()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[Opening, asyncio.Task[None]] = {}
        self._will_look = False

    def enter_loop(self) -> asyncio.AbstractEventLoop:
        """Serve the running event loop in place of the former one, whose calls may never end.

        The calls and openings of the former loop no longer count, and its connections in use
        are closed. Raises `OutboxError` if it still runs, in another thread.
        """
        loop = running_loop(self._owner)
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                name = f"Async{self._owner.title()}"
                raise OutboxError(
                    f"this {name} is in use in another event loop, which is running: "
                    f"make an {name} for each event loop"
                )
            self._shelf.forget_calls()
            self._tasks.clear()
            self._loop, self._will_look = loop, False
        return loop

    async def perform(self, program: Program[T]) -> T:
        """Perform a program in this task. Return its result, or raise its exception."""
        running_loop(self._owner)
        return await perform_async(program, self._act)

    async def take(
        self, *, fresh: bool, deadline: float | None, role_path: bool = False
    ) -> AsyncConnection:
        """Return a kept connection or a new one, or only one that was never used if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        require_time(deadline)
        self.enter_loop()
        waiter = _TaskWaiter(fresh=fresh, role_path=role_path, deadline=deadline)
        try:
            self._ask(waiter)
            if not waiter.is_answered:
                with anyio.move_on_after(seconds_left(deadline)):
                    await waiter.turn
            return self._answer(waiter, deadline)
        except BaseException:
            self._leave(waiter)
            raise

    async def end(self) -> None:
        """Close the connections as `close` does, and wait for the end of abandoned openings."""
        self.close()
        abandoned = [task for task in self._tasks.values() if task.cancelling()]
        if abandoned:
            await asyncio.wait(abandoned)

    async def _act(self, primitive: Primitive) -> Any:
        if isinstance(primitive, Open):
            fresh, role_path = primitive.fresh, primitive.role_path
            return await self.take(fresh=fresh, deadline=primitive.deadline, role_path=role_path)
        if isinstance(primitive, Sleep) and primitive.meanwhile is not None:
            with self._open_meanwhile(primitive.meanwhile):
                return await do_async(primitive)
        return await do_async(primitive)

    def _serve(self) -> None:
        super()._serve()
        # A thread that waits looks again by itself. For a task nothing may happen until then.
        if self._shelf.holds_back and self._loop is not None and not self._will_look:
            self._will_look = True
            self._loop.call_later(PAUSE, self._look_again)

    def _look_again(self) -> None:
        self._will_look = False
        self._serve()

    def _start(self, opening: Opening) -> None:
        loop = self.enter_loop()
        # An empty context, so that the spans of a caller are not parents of shared work.
        task = loop.create_task(self._open(self._shelf, opening), context=Context())
        self._tasks[opening] = task
        task.add_done_callback(lambda _: self._tasks.pop(opening, None))

    async def _open(self, shelf: Shelf[AsyncConnection], opening: Opening) -> None:
        opening.has_begun = True
        try:
            connection = await self._database.connect_async(role_path=opening.role_path)
        except asyncio.CancelledError:
            shelf.fail_opening(opening, None)
            self._serve()
            raise
        except Exception as error:  # noqa: BLE001 - a call that waits gets it
            shelf.fail_opening(opening, error)
        else:
            shelf.finish_opening(opening, connection)
        self._serve()

    def _abandon(self, opening: Opening) -> None:
        self._tasks[opening].cancel()
