"""Perform a program: a generator that decides everything and does no I/O itself.

It yields one step at a time and receives the step's answer, or its exception. So a program
serves threads and tasks, which only perform its steps differently.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


def perform(program: Generator[S, Any, T], do: Callable[[S], Any]) -> T:
    """Perform a program in this thread; `do` does a step. Return the program's result."""
    try:
        step = next(program)
        while True:
            try:
                answer = do(step)
            except BaseException as error:  # noqa: BLE001 - the program decides
                step = program.throw(error)
            else:
                step = program.send(answer)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


async def perform_async(program: Generator[S, Any, T], do: Callable[[S], Awaitable[Any]]) -> T:
    """Perform a program in this task; `do` does a step. Return the program's result."""
    try:
        step = next(program)
        while True:
            try:
                answer = await do(step)
            except BaseException as error:  # noqa: BLE001 - the program decides
                step = program.throw(error)
            else:
                step = program.send(answer)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
