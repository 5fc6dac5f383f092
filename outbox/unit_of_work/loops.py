"""The two loops that perform a program: one in a thread, one in a task of asyncio."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

import anyio
import psycopg
from psycopg.rows import tuple_row

from .primitives import Exchange, Invoke, Primitive, Program, Query, Sleep, TakeTurn

T = TypeVar("T")


def perform(program: Program[T], do: Callable[[Primitive], Any]) -> T:
    """Perform a program in this thread. Return its result, or raise its exception."""
    try:
        primitive = next(program)
        while True:
            try:
                answer = do(primitive)
            except BaseException as error:  # noqa: BLE001 - the program decides
                primitive = program.throw(error)
            else:
                primitive = program.send(answer)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


async def perform_async(program: Program[T], do: Callable[[Primitive], Awaitable[Any]]) -> T:
    """Perform a program in this task. Return its result, or raise its exception."""
    try:
        primitive = next(program)
        while True:
            try:
                answer = await do(primitive)
            except BaseException as error:  # noqa: BLE001 - the program decides
                primitive = program.throw(error)
            else:
                primitive = program.send(answer)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


def do(primitive: Primitive) -> Any:
    """Do a primitive in this thread. Only a lender of connections can do `Open`."""
    match primitive:
        case Exchange(connection, run):
            with connection.lock:
                return connection.wait(run)
        case Query(connection, query, parameters, has_rows):
            cursor = psycopg.Cursor(connection, row_factory=tuple_row)
            cursor.execute(query, parameters)
            return cursor.fetchall() if has_rows else []
        case Invoke(function, handle):
            return function(handle)
        case Sleep(seconds):
            return sleep(seconds)
        case TakeTurn(turns, turn, deadline):
            came = threading.Lock()
            came.acquire()
            return turns.join(turn, came.release) or came.acquire(timeout=_seconds(deadline))
        case _:
            raise TypeError(f"{primitive} needs a lender of connections")


async def do_async(primitive: Primitive) -> Any:
    """Do a primitive in this task, as `do` does."""
    match primitive:
        case Exchange(connection, run):
            async with connection.lock:
                return await connection.wait(run)
        case Query(connection, query, parameters, has_rows):
            cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
            await cursor.execute(query, parameters)
            return await cursor.fetchall() if has_rows else []
        case Invoke(function, handle):
            return await function(handle)
        case Sleep(seconds):
            return await anyio.sleep(seconds)
        case TakeTurn(turns, turn, deadline):
            wakes: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if not turns.join(turn, partial(_wake, wakes)):
                with anyio.move_on_after(None if deadline is None else _seconds(deadline)):
                    await wakes
            return not turn.in_front
        case _:
            raise TypeError(f"{primitive} needs a lender of connections")


def _seconds(deadline: float | None) -> float:
    """Return the seconds until the deadline, as a lock takes them: -1 means without a limit."""
    return -1 if deadline is None else min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


def _wake(wakes: "asyncio.Future[None]") -> None:
    if not wakes.done():
        wakes.set_result(None)
