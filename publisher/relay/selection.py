"""Which of the rows that were read may be sent now. The module does no I/O.

The promise is order per subject. A row may go if nothing of its subject is
known to come before it: no row of the subject waits after a failure, and its
predecessor, the subject's row before it, is delivered or goes in this round.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from .outbox_rows import OutboxRow, RowId


class Hold(msgspec.Struct, frozen=True):
    """A row that failed `attempts` times; its subject waits until `retry_at`.

    `retry_at` is a time of the monotonic clock; infinity when blocked.
    """

    id: RowId
    attempts: int
    retry_at: float


class Selection(NamedTuple):
    """The rows to send, the number of rows that wait, and the shards to read from their head.

    `faulty` rows cannot become messages; no later row of their subject is chosen.
    """

    rows: list[OutboxRow]
    held: int
    rewind: set[int]
    faulty: list[OutboxRow]


def select(
    rows: Sequence[OutboxRow],
    holds: Mapping[str, Hold],
    settled: Mapping[RowId, str],
    now: float,
    *,
    again: Mapping[int, int] | None = None,
) -> Selection:
    """Choose the rows to send; `rows` are in order of shard and position.

    `holds` are by key; `settled` are rows, with their keys, that the broker has
    acknowledged but that were not deleted yet when these were read. `again` tells
    from which position on shards will be read once more anyway.
    """
    chosen: list[OutboxRow] = []
    faulty: list[OutboxRow] = []
    before = {(key, row.position) for row, key in settled.items()}
    waiting: set[str] = set()
    rewind: set[int] = set()
    held = 0
    for row in rows:
        key = row.key
        if row.id in settled:
            continue
        if key in waiting or _is_held(row, holds.get(key), now):
            waiting.add(key)
            held += 1
        elif _has_before(row) and (key, row.previous_position) not in before:
            waiting.add(key)
            held += 1
            if row.previous_position < (again or {}).get(row.shard, row.position):
                rewind.add(row.shard)
        elif row.fault is not None:
            waiting.add(key)
            faulty.append(row)
        else:
            before.add((key, row.position))
            chosen.append(row)
    return Selection(chosen, held, rewind, faulty)


def _has_before(row: OutboxRow) -> bool:
    """Whether the row's predecessor exists; a later row, which an invalid row may name, is none."""
    return row.predecessor and row.previous_position < row.position


def _is_held(row: OutboxRow, hold: Hold | None, now: float) -> bool:
    return hold is not None and hold.retry_at > now and row.position >= hold.id.position
