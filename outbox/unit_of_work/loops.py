"""The two loops that perform a program: one in a thread, one in a task of asyncio."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from inspect import GEN_CLOSED, getgeneratorstate
from time import monotonic, sleep
from typing import Any, Final, TypeVar

import anyio
import psycopg
from psycopg.rows import tuple_row

from .primitives import Exchange, Invoke, Primitive, Program, Query, Sleep, TakeTurn

T = TypeVar("T")

_LOOK: Final = 5.0
"""Seconds after which a call that waits for its turn looks again: an interrupted one wakes nobody.

A call that comes later finds the turn of the interrupted one gone at once.
"""


def perform(program: Program[T], do: Callable[[Primitive], Any]) -> T:
    """Perform a program in this thread. Return its result, or raise its exception.

    An interrupt between two primitives is thrown into the program, too: only the program can give
    back what it has.
    """
    step: Callable[[Any], Primitive] = program.send
    given: Any = None
    while True:
        try:
            while True:
                given, step = do(step(given)), program.send
        except BaseException as error:
            if getgeneratorstate(program) != GEN_CLOSED:  # it goes on, and decides
                given, step = error, program.throw
            elif isinstance(error, StopIteration):
                return error.value  # type: ignore[no-any-return]
            else:
                raise


async def perform_async(program: Program[T], do: Callable[[Primitive], Awaitable[Any]]) -> T:
    """Perform a program in this task, as `perform` does in a thread."""
    step: Callable[[Any], Primitive] = program.send
    given: Any = None
    while True:
        try:
            while True:
                given, step = await do(step(given)), program.send
        except BaseException as error:
            if getgeneratorstate(program) != GEN_CLOSED:
                given, step = error, program.throw
            elif isinstance(error, StopIteration):
                return error.value  # type: ignore[no-any-return]
            else:
                raise


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
            woken = threading.Event()
            has_come = turns.join(turn, woken.set)
            while not has_come and (seconds := _seconds(deadline)):
                woken.wait(seconds)
                has_come = turns.has_come(turn)
            return has_come
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
            awoken = asyncio.Event()
            has_come = turns.join(turn, awoken.set)
            while not has_come and (seconds := _seconds(deadline)):
                with anyio.move_on_after(seconds):
                    await awoken.wait()
                has_come = turns.has_come(turn)
            return has_come
        case _:
            raise TypeError(f"{primitive} needs a lender of connections")


def _seconds(deadline: float | None) -> float:
    """Return the seconds until the deadline or the next look, whichever comes first."""
    return _LOOK if deadline is None else min(max(0.0, deadline - monotonic()), _LOOK)
