"""Ranges of keys, to read a table page by page.

The filters of an operator have no index. So a page is a number of rows in key order, and the
filter applies within it.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

PAGE_ROWS: Final = 1_000
"""Rows that one statement reads, whether they match the filter or not."""

K = TypeVar("K")
T = TypeVar("T")

FIRST_ID: Final = UUID(int=0)
LAST_ID: Final = UUID(int=(1 << 128) - 1)
FIRST_SHARD: Final = -(1 << 31)
FIRST_POSITION: Final = -(1 << 63)
"""Before every shard and every position, also an invalid one."""


class IdRange(msgspec.Struct, frozen=True):
    """The ids from `first` to `last`, both included."""

    first: UUID = FIRST_ID
    last: UUID = LAST_ID


def id_ranges(ids: Sequence[UUID]) -> Iterator[IdRange]:
    """One range per distinct id, in the given order; one range of all ids if there are none."""
    if not ids:
        yield IdRange()
    for each in dict.fromkeys(ids):
        yield IdRange(each, each)


class Block(NamedTuple, Generic[K, T]):
    """The result of one statement: `seen` rows up to the key `reached`, and the matches in them."""

    seen: int
    reached: K
    found: Sequence[T]


class Page(msgspec.Struct, Generic[K, T], frozen=True):
    """The matches of one page. `read` is the number of rows read for it, matches or not.

    `after` is the key after which the next page starts; None at the end of the table.
    """

    found: Sequence[T]
    read: int
    after: K | None


async def read_page(
    block: Callable[[K, int], Awaitable[Block[K, T]]],
    key: Callable[[T], K],
    after: K,
    rows: int,
    blocks: Sequence[int],
) -> Page[K, T]:
    """Read up to `rows` matches after a key, with one statement per block until there are enough.

    `blocks` are the rows that each statement reads at most, whether they match or not.
    `block` reads a number of rows after a key, and `key` returns the key of a match.
    """
    found: list[T] = []
    read = 0
    for size in blocks:
        seen, after, more = await block(after, size)
        found += more
        read += seen
        if len(found) > rows:
            return Page(found[:rows], read, key(found[rows - 1]))
        if seen < size:
            return Page(found, read, None)
        if len(found) == rows:
            break
    return Page(found, read, after)
