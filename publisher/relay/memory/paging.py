"""Make pages of the rows of a read. No I/O."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, TypeVar

from dsql_outbox.outbox.message import subject_keys
from dsql_outbox.publisher.sinks.port import MAX_RUN_BYTES
from dsql_outbox.schema.outbox_rows import (
    REPLAY_NAME,
    ROW_COLUMNS,
    RawRow,
    bytes_of,
    row_ids,
    waits,
)

from .pages import Page
from .rows import Rows
from .subjects import Shard

MOST: Final = 128
"""The most rows of a page, or a run more. More save little, and a page is sent as a whole."""

MOST_BYTES: Final = MAX_RUN_BYTES
"""The most bytes of a page, if it has more than a run: one statement deletes a part of a page."""

LONGEST: Final = 32
"""The most rows of a subject in a page. One with more of them in a read needs its own queue."""

_COLUMNS: Final = ("range", *ROW_COLUMNS)
_ID: Final = slice(_COLUMNS.index("shard"), _COLUMNS.index("event_id") + 1)
_POSITION: Final = _COLUMNS.index("position")
_BEFORE: Final = _COLUMNS.index("previous_position")
_TYPE: Final = _COLUMNS.index("subject_type")
_NAME: Final = _COLUMNS.index("subject_id")
_TOPIC: Final = _COLUMNS.index("topic")
_HEADERS: Final = _COLUMNS.index("headers")
_PAYLOAD: Final = _COLUMNS.index("payload")
_PREDECESSOR: Final = _COLUMNS.index("predecessor")

T = TypeVar("T")


def pages_of(
    shard: Shard,
    found: Sequence[RawRow],
    rows: Rows,
    paged: Collection[str],
    paused: Callable[[str], bool],
) -> tuple[list[Page], Sequence[RawRow]]:
    """Make pages of the unknown rows of a range. Returns them, and the rows that are in none.

    A subject is in one page with all of its rows of the range, at most `LONGEST`, or in none. Those
    that are `paged` have a row in a page already.
    """
    if len(found) < Page.LEAST:
        return [], found
    columns = list(zip(*found, strict=True))
    ids = row_ids(*columns[_ID])
    known = rows.known.keys()
    if not known.isdisjoint(ids):
        unknown = [row for row, each in zip(found, ids, strict=True) if each not in known]
        return pages_of(shard, unknown, rows, paged, paused)
    keys = subject_keys(columns[_TYPE], columns[_NAME])
    texts, payloads, topics = columns[_HEADERS], columns[_PAYLOAD], columns[_TOPIC]
    sizes = [bytes_of(*each) for each in zip(texts, payloads, strict=True)]
    chosen: Sequence[int] = range(len(found))
    longest = 1
    is_plain = (
        len({*keys}) == len(keys)
        and True not in columns[_PREDECESSOR]
        and None not in payloads
        and REPLAY_NAME not in "".join(texts)
        and shard.subjects.keys().isdisjoint(keys)
        and not any(map(paged.__contains__, keys))
        and not any(map(paused, {*topics}))
    )
    if not is_plain:
        runs, apart = _runs(found, keys, rows, paused)
        apart.update(key for key in runs if key in shard.subjects or key in paged)
        for key, run in runs.items():
            size = sum(sizes[at] for at in run)
            if len(run) > LONGEST or (len(run) > 1 and size > MAX_RUN_BYTES):
                apart.add(key)
        longest = LONGEST
        chosen = [at for key, run in runs.items() if key not in apart for at in run]
    of_topics: dict[str, list[int]] = {}
    for at in chosen:
        of_topics.setdefault(topics[at], []).append(at)
    parts = [
        part
        for of in of_topics.values()
        for part in _parts(of, keys, sizes)
        if len(part) >= Page.LEAST
    ]
    pages = [
        Page(
            shard,
            topics[part[0]],
            *(_chosen(found, part), _chosen(keys, part), _chosen(ids, part), _chosen(sizes, part)),
            longest,
        )
        for part in parts
    ]
    in_pages = {at for part in parts for at in part}
    return pages, [row for at, row in enumerate(found) if at not in in_pages]


def _runs(
    found: Sequence[RawRow], keys: Sequence[str], rows: Rows, paused: Callable[[str], bool]
) -> tuple[dict[str, list[int]], set[str]]:
    """The rows of each subject, and the subjects with a row that cannot be in a page."""
    runs: dict[str, list[int]] = {}
    apart: set[str] = set()
    last: dict[str, tuple[int, str]] = {}
    for at, (row, key) in enumerate(zip(found, keys, strict=True)):
        position, before, topic = row[_POSITION], row[_BEFORE], row[_TOPIC]
        previous = last.get(key)
        if (
            (
                waits(row[_PREDECESSOR], before, position)
                and (previous is None or previous[0] != before)
                and not rows.knows_position(key, before)
            )
            or (previous is not None and previous[1] != topic)
            or row[_PAYLOAD] is None
            or REPLAY_NAME in row[_HEADERS]
            or paused(topic)
        ):
            apart.add(key)
        runs.setdefault(key, []).append(at)
        last[key] = position, topic
    return runs, apart


def _chosen(column: Sequence[T], indexes: Sequence[int]) -> list[T]:
    return [column[at] for at in indexes]


def _parts(
    indexes: Sequence[int], keys: Sequence[str], sizes: Sequence[int]
) -> Iterator[Sequence[int]]:
    """Divide rows into those of pages. No run is divided."""
    begin = 0
    while begin < len(indexes):
        end, rest = begin, MOST_BYTES
        while end < len(indexes) and (
            (end < begin + MOST and sizes[indexes[end]] <= rest)
            or end == begin
            or keys[indexes[end]] == keys[indexes[end - 1]]
        ):
            rest -= sizes[indexes[end]]
            end += 1
        yield indexes[begin:end]
        begin = end
