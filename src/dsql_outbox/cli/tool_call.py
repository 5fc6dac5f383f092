"""One call of an operator's tool, in an event loop of its own."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from dsql_outbox.operations.tool import Operator

_Tool = TypeVar("_Tool", bound=Operator)
_T = TypeVar("_T")


def called(tool: _Tool, call: Callable[[_Tool], Awaitable[_T]]) -> _T:
    """Return what `call` gets from the tool, which is closed then."""

    async def run() -> _T:
        async with tool:
            return await call(tool)

    return anyio.run(run)
