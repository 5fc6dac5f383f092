"""Calls of an operator's tool, in an event loop of their own."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from dsql_outbox.outbox.database.database import Database

from .database_options import with_database

if TYPE_CHECKING:
    from dsql_outbox.schema.roles import Duty

_Tool = TypeVar("_Tool", bound=AbstractAsyncContextManager[Any])
_T = TypeVar("_T")


def called(tool: _Tool, call: Callable[[_Tool], Awaitable[_T]]) -> _T:
    """Return what `call` gets from the tool, which is closed then."""

    async def run() -> _T:
        async with tool:
            return await call(tool)

    return anyio.run(run)


async def collected(found: AsyncGenerator[_T], limit: int | None = None) -> list[_T]:
    """The first `limit` of what a tool finds, or all."""
    every: list[_T] = []
    async with aclosing(found):
        async for each in found:
            every.append(each)
            if len(every) == limit:
                break
    return every


def with_tool(
    tool: Callable[..., AbstractAsyncContextManager[Any]],
    advice: str | None = None,
    *,
    duty: "Duty",
    made_of: Sequence[str] = (),
    logs: bool = False,
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Make a command of an async function: it is called with the open tool and the options.

    An option that has the name of an argument of the tool's method is written down once: the
    function passes on what it does not name. The options `made_of` are arguments of the tool
    itself. The rest is as in `with_database`.
    """

    def decorate(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @wraps(function)
        def command(*, database: Database, **options: Any) -> None:
            own = {name: options.pop(name) for name in made_of}
            called(tool(database, **own), partial(function, **options))

        return with_database(advice, duty=duty, logs=logs)(command)

    return decorate
