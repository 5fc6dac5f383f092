"""Reading a table by its key, page by page, with filters that have no index."""

from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec

PAGE_ROWS: Final = 1_000
"""Rows that one statement reads, however few of them match."""

FIRST_ID: Final = UUID(int=0)
LAST_ID: Final = UUID(int=(1 << 128) - 1)


class IdRange(msgspec.Struct, frozen=True):
    """The ids from `first` to `last`, both included."""

    first: UUID = FIRST_ID
    last: UUID = LAST_ID


def id_ranges(ids: Sequence[UUID]) -> Iterator[IdRange]:
    """A range for each id, in their order; without ids the whole table."""
    if not ids:
        yield IdRange()
    for each in dict.fromkeys(ids):
        yield IdRange(each, each)
