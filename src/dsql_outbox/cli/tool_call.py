"""One call of a tool, in an event loop of its own."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio

_Tool = TypeVar("_Tool", bound=AbstractAsyncContextManager[Any])
_T = TypeVar("_T")


def called(tool: _Tool, call: Callable[[_Tool], Awaitable[_T]]) -> _T:
    """Return what `call` gets from the tool, which is closed then."""

    async def run() -> _T:
        async with tool:
            return await call(tool)

    return anyio.run(run)
