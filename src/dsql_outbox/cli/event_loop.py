"""The event loop of `publish`: uvloop if it is installed, else asyncio's own."""

import gc
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Final, TypeVar, TypeVarTuple, Unpack

import anyio

T = TypeVar("T")
A = TypeVarTuple("A")


_COLLECTIONS: Final = (50_000, 20, 50)
"""The thresholds of `gc`. A row makes about ten objects that no cycle holds; looking at them after
every 700 takes a tenth of the CPU of a publisher."""


def run(work: Callable[[Unpack[A]], Awaitable[T]], *arguments: *A) -> T:
    """Run an asynchronous function to its end."""
    has_uvloop, before = find_spec("uvloop") is not None, gc.get_threshold()
    gc.set_threshold(*_COLLECTIONS)
    try:
        return anyio.run(work, *arguments, backend_options={"use_uvloop": has_uvloop})
    finally:
        gc.set_threshold(*before)
