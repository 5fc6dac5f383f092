"""The question whether a message waits for the relay."""

from collections.abc import Collection
from typing import Final

from dsql_outbox.outbox.database.array_literals import plain_array

from .session import Session

_FIRST_ROWS: Final = 500
"""Rows of the first page: where messages wait, most of these do."""

_ROWS: Final = 10_000
"""Rows of each other page. So no statement lasts long, however many messages are paused."""

_FIRST: Final = -(1 << 31)
_LAST: Final = (1 << 31) - 1
_HEAD: Final = (-(1 << 63), "00000000-0000-0000-0000-000000000000")


async def has_backlog(
    session: Session,
    shards: Collection[int] | None = None,
    *,
    first: int = _FIRST,
    last: int = _LAST,
) -> bool:
    """Whether a message waits that the relay can send now or later, without an operator.

    `shards` are those that count; None: all from `first` to `last`. Raises the driver's errors.
    """
    after: tuple[int, int, str] = (first, *_HEAD)
    rows, seen = 0, 0
    blocked: set[tuple[int, str, str]] = set()
    while seen == rows:
        rows = _FIRST_ROWS if seen == 0 else _ROWS
        parameters = {
            **dict(zip(("shard", "position", "event_id"), after, strict=True)),
            "rows": rows,
            "last": last,
            "shards": None if shards is None else plain_array(shards),
        }
        found = await session.fetch_rows("outbox_waiting", parameters)
        seen, *reached = found[0][:4]
        for *subject, is_blocked in (row[4:] for row in found):
            key = tuple(subject)
            if is_blocked:
                blocked.add(key)
            elif is_blocked is not None and key not in blocked:
                return True
        after = tuple(reached)
    return False
