"""Messages that were not delivered: their one type, and the pages that read them.

Each state has a table, or a part of one, and a statement that reads a page of it by key. A filter
has no index. So a page is a number of rows in the order of the key, and the statement returns
those of them that match. A target is a range of keys, and ids are keys.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.schema.outbox_rows import REPLAY_HEADER, read_headers
from dsql_outbox.schema.session import Session
from dsql_outbox.schema.target_rows import TargetRow, require_target

from .selection import STATES, Selection, State

PAGE_ROWS: Final = 1_000
"""Rows that one statement reads, whether they match or not."""

_FIRST_ID: Final = UUID(int=0)
_FIRST_SHARD: Final = -(1 << 31)
_LAST_SHARD: Final = (1 << 31) - 1
_FIRST_POSITION: Final = -(1 << 63)
"""Before every shard and every position, also an invalid one."""

_VERSION: Final = "version"
_NO_VERSION: Final = (1 << 63) - 1
_MALFORMED: Final = "the place in the list is malformed: start again from the first page"


class UndeliveredMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that was not delivered.

    `subject` is ``TYPE/ID``, as in the message's key. `type` is that of the event, or empty if the
    stored headers cannot be read; then `headers` is empty too. `position` is in microseconds.
    `replay` is the number of the replay of the event, 0 for the original message.

    A failing or dead message has `attempts` and `error`, the last one. `retry_at` is the time of
    the next attempt; a failing message without it is blocked and waits for an operator. With
    `behind`, an earlier message of its subject still waits, so this one cannot be sent yet. With
    `paused`, an operator has paused its topic. `died_at` is the time at which a dead message was
    given up. `target` is None where there is no other than the default one.

    `payload_bytes` is the size of the payload, and `payload` the exact text of the event, or
    None unless requested.
    """

    state: State
    event_id: UUID
    subject: str
    subject_version: int
    topic: str
    type: str
    created_at: datetime
    attempts: int
    error: str | None
    retry_at: datetime | None
    behind: bool
    paused: bool
    died_at: datetime | None
    replay: int
    shard: int
    position: int
    headers: dict[str, str]
    payload_bytes: int
    target: str | None = None
    payload: str | None = None

    @property
    def blocked(self) -> bool:
        """Whether it waits for an operator."""
        return self.state == "failing" and self.retry_at is None

    @property
    def row_key(self) -> dict[str, object]:
        """The parameters of a statement on its row of the outbox."""
        return {"shard": self.shard, "position": self.position, "event_id": self.event_id}

    @property
    def since(self) -> datetime:
        """The time that a `Selection` compares: of its death, or else of its creation."""
        return self.created_at if self.died_at is None else self.died_at


class Keyed(NamedTuple):
    """A message and its key, as text: the database has times that Python has not."""

    key: tuple[str, ...]
    message: UndeliveredMessage


class FoundRow(NamedTuple):
    """A row of a statement that reads messages; `found` is None if none of the page matches.

    `reached` is the key of the last of the `seen` rows of the page.
    """

    found: Keyed | None
    seen: int
    reached: str | None


def found_row(  # noqa: PLR0913 - one argument per column that is not a field
    *,
    place: str | None,
    subject_type: str,
    subject_id: str,
    headers: str,
    attempts: int | None,
    replays: int | None,
    seen: int = 0,
    reached: str | None = None,
    **rest: Any,
) -> FoundRow:
    """Read a row. `place` is the key of its message; all but `seen` and `reached` may be NULL."""
    if place is None:
        return FoundRow(None, seen, reached)
    stored = read_headers(headers)
    number = 0 if stored.fault else int(stored.by_name.get(REPLAY_HEADER, 0))
    message = UndeliveredMessage(
        subject=subject_key(subject_type, subject_id),
        type=stored.by_name.get("type", ""),
        attempts=attempts or 0,
        replay=number if replays is None else replays,
        headers=stored.by_name,
        **rest,
    )
    return FoundRow(Keyed(tuple(place.split("/")), message), seen, reached)


class Table(NamedTuple):
    """How the messages of a state are read: the statement, and the names of its key.

    `first` is the key before all others. `blocks` are the numbers of rows that the statements
    for a page of the console read.
    """

    state: State
    statement: str
    names: tuple[str, ...]
    first: tuple[object, ...]
    blocks: tuple[int, ...]


_ROW: Final = ("shard", "position", "event_id")
_FIRST_ROW: Final = (_FIRST_SHARD, _FIRST_POSITION, _FIRST_ID)

FAILING: Final = Table(
    "failing",
    "failure_page",
    _ROW,
    _FIRST_ROW,
    (500,) * 4,  # for more rows, PostgreSQL would read the whole outbox
)
DEAD: Final = Table(
    "dead", "letter_page", ("event_id", "died_at"), (None, "infinity"), (500, 4_500)
)
WAITING: Final = Table("waiting", "waiting_page", _ROW, _FIRST_ROW, (500, 4_500))

_TABLES: Final = {table.state: table for table in (FAILING, DEAD, WAITING)}


class Place(NamedTuple):
    """A place in the list of all messages: after a key of a table."""

    table: Table
    key: tuple[object, ...]

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Parse the text of a place. Raises `SettingsError` for any other text."""
        state, *key = text.split("/")
        table = next((each for each in _TABLES.values() if each.state == state), None)
        if table is None or len(key) != len(table.names):
            raise SettingsError(_MALFORMED)
        return cls(table, tuple(key))

    def __str__(self) -> str:
        return "/".join((self.table.state, *map(str, self.key)))


class Block(NamedTuple):
    """The result of one statement: `seen` rows up to the key `reached`, and the matches in them."""

    seen: int
    reached: tuple[object, ...]
    found: list[Keyed]


class Page(msgspec.Struct, frozen=True):
    """A page of messages. `read` is the number of rows read for it, matches or not.

    `after` is the place after which the next page starts; None at the end.
    """

    found: list[UndeliveredMessage]
    read: int
    after: str | None


def tables(selection: Selection) -> Iterator[Table]:
    """The tables that have selected messages: first those that an operator looks after."""
    return (_TABLES[state] for state in STATES if state in selection.states)


async def message_pages(session: Session, selection: Selection) -> AsyncGenerator[list[Keyed]]:
    """The selected messages without payload, state by state, each in the order of its table.

    A page has those that one statement has found, if any. Memory does not grow with their number.
    """
    search = await Search.of(session, selection)
    if selection.ids:
        ids = tuple(dict.fromkeys(selection.ids))
        for start in range(0, len(ids), PAGE_ROWS):
            yield await search.by_id(ids[start : start + PAGE_ROWS])
        return
    for table in tables(selection):
        seen, after = PAGE_ROWS, search.first(table)
        while seen == PAGE_ROWS:
            seen, after, found = await search.block(table, after, PAGE_ROWS)
            yield found


async def state_pages(
    session: Session, selection: Selection, state: State, limit: int | None
) -> AsyncGenerator[list[Keyed]]:
    """The first `limit` selected messages of one state, page by page."""
    if state not in selection.states or limit == 0:
        return
    count = 0
    some = msgspec.structs.replace(selection, state=state)
    async with aclosing(message_pages(session, some)) as pages:
        async for page in pages:
            yield page if limit is None else page[: limit - count]
            count += len(page)
            if limit is not None and count >= limit:
                return


async def read_page(session: Session, selection: Selection, after: str | None, rows: int) -> Page:
    """Up to `rows` of the selected messages after a place, however few match.

    One state costs at most 5,000 rows. With `ids`, there is one page. The messages of one subject
    are found by the keys of its last events, 1,000 of them for a page.
    """
    search = await Search.of(session, selection)
    if selection.ids:
        messages = [each.message for each in await search.by_id(selection.ids)]
        return Page(messages, len(messages), None)
    if selection.entity is not None:
        return await _subject_page(search, selection.entity, after)
    found: list[tuple[Place, UndeliveredMessage]] = []
    read = 0
    for table, key in _places(search, after):
        reached = key
        for size in table.blocks:
            seen, reached, more = await search.block(table, reached, size)
            found += [(Place(table, each.key), each.message) for each in more]
            read += seen
            if len(found) > rows:
                return Page([each for _, each in found[:rows]], read, str(found[rows - 1][0]))
            if seen < size:
                break
        else:
            return Page([each for _, each in found], read, str(Place(table, reached)))
    return Page([each for _, each in found], read, None)


async def _subject_page(search: "Search", entity: tuple[str, str], after: str | None) -> Page:
    """The messages of the next 1,000 events of a subject, from the last one back."""
    before = _NO_VERSION if after is None else _version(after)
    ids, last = await search.events_of(entity, before)
    found = [each.message for each in await search.by_id(ids)]
    found.sort(key=lambda each: (STATES.index(each.state), each.subject_version))
    return Page(found, len(ids), f"{_VERSION}/{last}" if len(ids) == PAGE_ROWS else None)


def _version(place: str) -> int:
    name, _, version = place.partition("/")
    if name != _VERSION or not version.isdecimal() or int(version) > _NO_VERSION:
        raise SettingsError(_MALFORMED)
    return int(version)


def _places(search: "Search", after: str | None) -> Iterator[Place]:
    """Where to read: after the place, and then the later tables from their start."""
    place = None if after is None else Place.parse(after)
    for table in tables(search.selection):
        if place is None:
            yield Place(table, search.first(table))
        elif place.table is table:
            yield place
            place = None


async def shards_of(session: Session, target: str | None) -> tuple[int, int]:
    """The first and the last shard of a target; None: of all, also those that are invalid.

    Raises `SettingsError` for a target that does not exist.
    """
    if target is None:
        return _FIRST_SHARD, _LAST_SHARD
    rows = await session.fetch("target_known", TargetRow, {})
    first = require_target(rows, target, None).first_shard
    return first, first + TARGET_SHARDS - 1


class Search(NamedTuple):
    """Reads the selected messages of some shards: those of one target, or all."""

    session: Session
    selection: Selection
    first_shard: int
    last_shard: int

    @classmethod
    async def of(cls, session: Session, selection: Selection) -> Self:
        """The search of a selection. Raises `SettingsError` for a target that does not exist."""
        return cls(session, selection, *await shards_of(session, selection.target))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements, without those of a page."""
        shards = {"first_shard": self.first_shard, "last_shard": self.last_shard}
        return self.selection.parameters() | shards

    def first(self, table: Table) -> tuple[object, ...]:
        """The key before the first of the messages that can match."""
        if table is DEAD:
            until = self.parameters["until"]
            return DEAD.first if until is None else (None, until)
        return (self.first_shard, *table.first[1:])

    async def block(self, table: Table, after: tuple[object, ...], rows: int) -> Block:
        """The selected messages among the next `rows` of a table after a key."""
        parameters = self.parameters | dict(zip(table.names, after, strict=True))
        found = await self.session.fetch(table.statement, found_row, parameters | {"rows": rows})
        reached = found[0].reached
        return Block(
            found[0].seen,
            after if reached is None else tuple(reached.split("/")),
            self._matches(found),
        )

    async def by_id(self, ids: Sequence[UUID]) -> list[Keyed]:
        """The selected messages of some events."""
        parameters = self.parameters | {"event_ids": array_literal(dict.fromkeys(ids))}
        names = ["waiting_find"] * (self.selection.states != ("dead",))
        names += ["letter_find"] * ("dead" in self.selection.states)
        return [
            each
            for name in names
            for each in self._matches(await self.session.fetch(name, found_row, parameters))
        ]

    async def events_of(self, entity: tuple[str, str], before: int) -> tuple[list[UUID], int]:
        """The last 1,000 events of an entity before a version, and the version of the first."""
        names = {"entity_type": entity[0], "entity_id": entity[1]}
        found = await self.session.fetch_rows(
            "subject_events", {**names, "before": before}, rows=PAGE_ROWS
        )
        return [event_id for _, event_id in found], found[-1][0] if found else 0

    def _matches(self, rows: Sequence[FoundRow]) -> list[Keyed]:
        found = [row.found for row in rows if row.found is not None]
        return [each for each in found if self.selection.type in {None, each.message.type}]
