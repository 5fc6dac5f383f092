"""The event loop of `publish`: uvloop if it is installed, else asyncio's own."""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, TypeVarTuple, Unpack

import anyio

T = TypeVar("T")
A = TypeVarTuple("A")


def run(work: Callable[[Unpack[A]], Awaitable[T]], *arguments: *A) -> T:
    """Run an asynchronous function to its end."""
    has_uvloop = find_spec("uvloop") is not None
    return anyio.run(work, *arguments, backend_options={"use_uvloop": has_uvloop})
