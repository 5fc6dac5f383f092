"""Dead letters, counted by target, topic and kind of error."""

from datetime import datetime
from time import monotonic
from typing import Final, NamedTuple

import msgspec

from dsql_outbox.schema.session import Session

from .selection import Selection
from .undelivered import Search

GROUPED: Final = 200_000
"""Dead letters that are read to be counted."""

_FIRST_LOOK: Final = 10
"""The first look reads so many times fewer, to see whether the second is quick enough."""

_LONGEST: Final = 0.5  # seconds of a first look before a second one


class LetterGroup(msgspec.Struct, frozen=True, rename="camel"):
    """Dead letters of one target and topic with errors of one kind, and the times of death.

    `target` is None where there is no other than the default one. `error` is the pattern of the
    errors: ``*`` stands for what differs, as in `Selection.error`.
    """

    target: str | None
    topic: str
    error: str
    count: int
    newest: datetime
    oldest: datetime


class LetterGroups(msgspec.Struct, frozen=True, rename="camel"):
    """The groups, the largest first, of the newest `read` letters; `more` were not read."""

    groups: tuple[LetterGroup, ...]
    read: int
    more: bool


class _GroupRow(NamedTuple):
    """A row of ``letter_groups``: the times are NULL if no letter of it is selected."""

    topic: str
    pattern: str
    seen: int
    letters: int
    newest: datetime
    oldest: datetime
    target: str | None


async def read_groups(session: Session, which: Selection, rows: int) -> LetterGroups:
    """Count the selected of the newest `rows` dead letters, or of a tenth on a slow database."""
    if "dead" not in which.states or which.type is not None:
        return LetterGroups((), 0, more=False)
    search = await Search.of(session, which)
    began = monotonic()
    found = await _read(search, max(1, rows // _FIRST_LOOK))
    if found.more and monotonic() - began < _LONGEST:
        found = await _read(search, rows)
    return found


async def _read(search: Search, rows: int) -> LetterGroups:
    found = await search.session.fetch(
        "letter_groups", _GroupRow, search.parameters | {"rows": rows}
    )
    groups: dict[tuple[str | None, str, str], LetterGroup] = {}
    for row in found:
        key = (row.target, row.topic, row.pattern)
        if row.letters and (known := groups.get(key)):  # of another shard
            groups[key] = msgspec.structs.replace(
                known,
                count=known.count + row.letters,
                newest=max(known.newest, row.newest),
                oldest=min(known.oldest, row.oldest),
            )
        elif row.letters:
            groups[key] = LetterGroup(*key, row.letters, row.newest, row.oldest)
    read = sum(row.seen for row in found)
    largest = sorted(groups.values(), key=lambda each: (-each.count, each.topic, each.error))
    return LetterGroups(tuple(largest), read, more=read == rows)
