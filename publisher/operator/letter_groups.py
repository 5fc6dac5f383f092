"""Dead letters, counted by target, topic and kind of error."""

from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Final, NamedTuple

import msgspec

from dsql_outbox.publisher.session import OperatorSession

from .selection import Selection
from .undelivered import DEAD, Search

GROUPED: Final = 100_000
"""Dead letters that are read to be counted."""

_BLOCK: Final = 25_000
_LONGEST: Final = 2.0  # seconds, after which no further block is read


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
    """The groups, the largest first. `read` letters were read, the newest; `more` were not."""

    groups: tuple[LetterGroup, ...]
    read: int
    more: bool


class _GroupRow(NamedTuple):
    """A row of ``letter_groups``: all but the first column are NULL if no letter matches."""

    seen: int
    reached: str | None
    topic: str | None
    pattern: str
    letters: int
    newest: datetime
    oldest: datetime
    target: str | None

    def group(self, topic: str) -> LetterGroup:
        """The group of this row."""
        return LetterGroup(self.target, topic, self.pattern, self.letters, self.newest, self.oldest)


async def read_groups(session: OperatorSession, which: Selection, rows: int) -> LetterGroups:
    """Read the newest dead letters in blocks, and count those that are selected."""
    search = await Search.of(session, which)
    after = search.first(DEAD)
    read, more = 0, "dead" in which.states and which.type is None
    ends_at = monotonic() + _LONGEST
    found: dict[tuple[str | None, str, str], LetterGroup] = {}
    while more and read < rows and monotonic() < ends_at:
        size = min(_BLOCK, rows - read)
        key = dict(zip(DEAD.names, after, strict=True))
        block = await session.read(
            "letter_groups", _GroupRow, search.parameters | key | {"rows": size}
        )
        _add(found, (row.group(row.topic) for row in block if row.topic is not None))
        read += block[0].seen
        more = block[0].seen == size
        if block[0].reached is not None:
            after = tuple(block[0].reached.split("/"))
    groups = sorted(found.values(), key=lambda each: (-each.count, each.topic, each.error))
    return LetterGroups(tuple(groups), read, more)


def _add(
    found: dict[tuple[str | None, str, str], LetterGroup], groups: Iterable[LetterGroup]
) -> None:
    for group in groups:
        key = (group.target, group.topic, group.error)
        known = found.get(key, group)
        found[key] = msgspec.structs.replace(
            group,
            count=group.count + (known.count if key in found else 0),
            newest=max(group.newest, known.newest),
            oldest=min(group.oldest, known.oldest),
        )
