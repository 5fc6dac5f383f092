"""Pages under a fence: the loop of each verb that changes rows.

The `pages` of a verb are what it reads, and `change` is its transaction. The loop stands here once.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from sys import maxsize
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .run import Fence, Run

K = TypeVar("K")
T = TypeVar("T")

LEAVE: Final = 2.0
"""Seconds that a run that is cancelled may take to give its lease back."""

Size = tuple[int, int]
"""How many rows an item changes, and how many bytes."""


class Step(NamedTuple, Generic[T]):
    """What a transaction has done: it settled the first `settled` items that it was given.

    It changed `changed` events, which is what the rate limits. `told` is what the run yields.
    """

    settled: int
    changed: int
    told: Sequence[T]


class TooLarge(Exception):
    """Two or more items have more rows or bytes than one transaction may change."""


async def change_pages(
    run: Run[Any, Any],
    fence: Fence,
    pages: AsyncGenerator[Sequence[K]],
    change: Callable[[Sequence[K]], Awaitable[Step[T]]],
    most: int = maxsize,
) -> AsyncGenerator[T]:
    """Change what is on the pages, a transaction after the other; yields what each one tells.

    `change` makes one transaction, which proves the fence, and settles one of its items at least;
    it gets `most` items at most. If it raises `TooLarge`, it gets half of them, and no more for the
    rest of the page.
    """
    if run.is_stopping:
        return
    async with aclosing(pages):
        async for page in pages:
            rest, limit = [*page], most
            while rest and await run.rest(fence):
                began, some = monotonic(), rest[:limit]
                try:
                    step = await change(some)
                except TooLarge:
                    limit = len(some) // 2
                    continue
                run.pace.spend(step.changed, began, monotonic())
                del rest[: step.settled]
                for each in step.told:
                    yield each
            if run.is_stopping:
                return


async def pack(
    run: Run[Any, Any],
    pages: AsyncGenerator[Sequence[K]],
    size: Callable[[K], Size],
    *,
    rows: int,
    bytes_: int,
) -> AsyncGenerator[Sequence[K]]:
    """Cut pages anew, so that what is on each one fits one transaction, and fills it."""
    left: list[K] = []
    async with aclosing(pages):
        async for page in pages:
            if run.is_stopping:
                return
            left += page
            while (n := count_fitting(map(size, left), rows=rows, bytes_=bytes_)) < len(left):
                yield left[:n]
                del left[:n]
    if left:
        yield left


def count_fitting(sizes: Iterable[Size], *, rows: int, bytes_: int) -> int:
    """How many of the first items fit one transaction of so many rows and bytes; one at least."""
    count = own_rows = own_bytes = 0
    for more_rows, more_bytes in sizes:
        own_rows, own_bytes = own_rows + more_rows, own_bytes + more_bytes
        if count and (own_rows > rows or own_bytes > bytes_):
            break
        count += 1
    return count
