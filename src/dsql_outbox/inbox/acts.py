"""Acts: how the programs of an inbox reach the database, for threads and for tasks."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

Act = Callable[[], Any]
"""Does one thing: takes a connection, talks to the server, calls a function or waits.

For tasks it returns an awaitable of its answer.
"""

Program = Generator[Act, Any, T]


def perform(program: Program[T]) -> T:
    """Perform a program in this thread, and return its result."""
    try:
        act = next(program)
        while True:
            try:
                answer = act()
            except BaseException as error:  # noqa: BLE001 - the program decides
                act = program.throw(error)
            else:
                act = program.send(answer)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


async def perform_async(program: Program[T]) -> T:
    """Perform a program whose acts return awaitables, and return its result."""
    try:
        act = next(program)
        while True:
            try:
                answer = await act()
            except BaseException as error:  # noqa: BLE001 - the program decides
                act = program.throw(error)
            else:
                act = program.send(answer)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
