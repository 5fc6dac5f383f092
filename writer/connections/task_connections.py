"""Connections for tasks of asyncio."""

import asyncio
from typing import Final
from weakref import ref

import anyio
import psycopg

from dsql_outbox.outbox import AsyncConnection, OutboxError

from .call_deadline import TOO_LATE, none_free, require_time, seconds_left
from .lender import Lender
from .shelf import Permit

_OTHER_LOOP: Final = (
    "this AsyncWriter is in use in another event loop, which is running: "
    "make an AsyncWriter for each event loop"
)


_NO_LOOP: Final = (
    "an AsyncWriter runs on asyncio, as psycopg does, and no event loop of asyncio runs here: "
    "with trio, use a Writer in a thread, as by trio.to_thread.run_sync(writer.write, event)"
)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop. Raises `OutboxError` outside asyncio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise OutboxError(_NO_LOOP) from error


class _TaskPermit(Permit):
    """The right of a task, granted by the room of its event loop."""

    def __init__(self, room: "_Room") -> None:
        self.room = room


class _Room:
    """Where the tasks of one event loop wait for a permit."""

    def __init__(self, limit: int) -> None:
        self.loop = running_loop()
        self._free = anyio.Semaphore(limit, fast_acquire=True)

    def enter_now(self) -> bool:
        """Take a permit if one is free."""
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def enter(self) -> None:
        """Wait for a permit."""
        await self._free.acquire()

    def leave(self) -> None:
        """Give a permit to the next task. No task of a closed loop waits."""
        if not self.loop.is_closed():
            self._free.release()


class AsyncConnections(Lender[AsyncConnection]):
    """Connections for tasks of asyncio.

    They serve one event loop at a time. After it has stopped they may serve another.
    """

    def _begin(self) -> None:
        super()._begin()
        self._room: _Room | None = None

    def enter_loop(self) -> None:
        """Serve the running event loop in place of the former one, whose calls may never end.

        The permits of the former loop no longer count, and its connections are closed. Raises
        `OutboxError` if it still runs, in another thread.
        """
        self._room_here()

    async def take(
        self, *, fresh: bool, deadline: float | None, role_path: bool = False
    ) -> AsyncConnection:
        """Return a kept connection or a new one, or only a new one if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        require_time(deadline)
        permit = _TaskPermit(self._room_here())
        await self._enter(permit, deadline)
        try:
            kept = None if fresh else self._shelf.reuse(role_path=role_path)
            connection = kept or await self._opened(deadline, role_path=role_path)
        except BaseException:
            self._leave(permit)
            raise
        connection.deadline = deadline
        connection.permit = permit
        permit.connection = ref(connection)
        return connection

    def _room_here(self) -> _Room:
        room = self._room
        if room is not None and room.loop is running_loop():
            return room
        if room is not None and room.loop.is_running():
            raise OutboxError(_OTHER_LOOP)
        self._shelf.forget_permits()
        self._room = room = _Room(self._limit)
        return room

    async def _enter(self, permit: _TaskPermit, deadline: float | None) -> None:
        if not permit.room.enter_now():
            with anyio.move_on_after(seconds_left(deadline)) as waiting:
                await permit.room.enter()
            if waiting.cancelled_caught:
                raise none_free(self._limit)
        self._shelf.enter(permit)

    def _leave(self, permit: _TaskPermit) -> None:
        self._shelf.leave(permit)
        permit.room.leave()

    def _permit_of(self, connection: AsyncConnection) -> _TaskPermit:
        """Return the permit of a connection, and close the connection of a former loop."""
        permit: _TaskPermit = connection.permit
        if permit.room is not self._room:
            connection.drop()
        return permit

    async def _opened(self, deadline: float | None, *, role_path: bool) -> AsyncConnection:
        self._shelf.make_room()
        left = seconds_left(deadline)
        try:
            with anyio.fail_after(left):
                return await self._database.connect_async(timeout=left, role_path=role_path)
        except TimeoutError:
            raise psycopg.OperationalError(TOO_LATE) from None
