"""Ranges of keys, to read a table page by page.

The filters of an operator have no index. So a page is a number of rows in the order
of the key, and the filter applies within it.
"""

from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec

PAGE_ROWS: Final = 1_000
"""Rows that one statement reads, whether they match the filter or not."""

FIRST_ID: Final = UUID(int=0)
LAST_ID: Final = UUID(int=(1 << 128) - 1)
FIRST_POSITION: Final = -(1 << 63)
"""Before every position, also an invalid one."""


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
