"""Messages that were not delivered: their one type, and the pages that read them.

Each state has a table, or a part of one, and a statement that reads a page of it by key. A filter
has no index. So a page is a number of rows in the order of the key, and the statement returns
those of them that match.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox import SettingsError, subject_key
from dsql_outbox.publisher.outbox_rows import REPLAY_HEADER, read_headers
from dsql_outbox.publisher.session import OperatorSession

from .selection import STATES, Selection, State

PAGE_ROWS: Final = 1_000
"""Rows that one statement reads, whether they match or not."""

_FIRST_ID: Final = UUID(int=0)
_FIRST_SHARD: Final = -(1 << 31)
_FIRST_POSITION: Final = -(1 << 63)
"""Before every shard and every position, also an invalid one."""


class UndeliveredMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that was not delivered.

    `subject` is ``TYPE/ID``, as in the message's key. `type` is that of the event, or empty if the
    stored headers cannot be read; then `headers` is empty too. `position` is in microseconds.
    `replay` is the number of the replay of the event, 0 for the original message.

    A failing or dead message has `attempts` and `error`, the last one. `retry_at` is the time of
    the next attempt; a failing message without it is blocked and waits for an operator. With
    `behind`, an earlier message of its subject still waits, so this one cannot be sent yet. With
    `paused`, an operator has paused its topic. `died_at` is the time at which a dead message was
    given up.

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
    payload: str | None = None

    @property
    def blocked(self) -> bool:
        """Whether it waits for an operator."""
        return self.state == "failing" and self.retry_at is None

    @property
    def since(self) -> datetime:
        """The time that a `Selection` compares: of its death, or else of its creation."""
        return self.created_at if self.died_at is None else self.died_at


class MessageRow(NamedTuple):
    """A row of a statement that reads messages, by the names of its columns.

    All but the last two columns are NULL if no message of the page matches. `place` is the key of
    the message as text, and `reached` that of the last of the `seen` rows of the page.
    """

    state: State
    place: str | None
    event_id: UUID
    subject_type: str
    subject_id: str
    subject_version: int
    topic: str
    headers: str
    bytes: int
    created_at: datetime
    shard: int
    position: int
    attempts: int | None
    error: str | None
    retry_at: datetime | None
    behind: bool
    paused: bool
    died_at: datetime | None
    replays: int | None
    seen: int = 0
    reached: str | None = None

    def message(self) -> UndeliveredMessage:
        """The message of this row."""
        stored = read_headers(self.headers)
        headers = stored.by_name
        number = 0 if stored.fault else int(headers.get(REPLAY_HEADER, 0))
        return UndeliveredMessage(
            state=self.state,
            event_id=self.event_id,
            subject=subject_key(self.subject_type, self.subject_id),
            subject_version=self.subject_version,
            topic=self.topic,
            type=headers.get("type", ""),
            created_at=self.created_at,
            attempts=self.attempts or 0,
            error=self.error,
            retry_at=self.retry_at,
            behind=self.behind,
            paused=self.paused,
            died_at=self.died_at,
            replay=number if self.replays is None else self.replays,
            shard=self.shard,
            position=self.position,
            headers=headers,
            payload_bytes=self.bytes,
        )


class Keyed(NamedTuple):
    """A message and its key, as text: the database has times that Python has not."""

    key: tuple[str, ...]
    message: UndeliveredMessage


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
DEAD: Final = Table("dead", "letter_page", ("event_id", "died_at"), (_FIRST_ID, None), (500, 4_500))
WAITING: Final = Table(
    "waiting",
    "waiting_page",
    _ROW,
    _FIRST_ROW,
    (500, 4_500),
)

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
            raise SettingsError(
                "the place in the list is malformed: start again from the first page"
            )
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


async def read_messages(session: OperatorSession, selection: Selection) -> AsyncGenerator[Keyed]:
    """The selected messages without payload, state by state, each in the order of its table.

    Memory does not grow with their number.
    """
    if selection.ids:
        async for each in _read_by_id(session, selection):
            yield each
        return
    for table in tables(selection):
        async for each in _read_table(session, selection, table):
            yield each


async def _read_table(
    session: OperatorSession, selection: Selection, table: Table
) -> AsyncGenerator[Keyed]:
    seen, after = PAGE_ROWS, table.first
    while seen == PAGE_ROWS:
        seen, after, found = await _read_block(session, selection, table, after, PAGE_ROWS)
        for each in found:
            yield each


async def read_page(
    session: OperatorSession, selection: Selection, after: str | None, rows: int
) -> Page:
    """Up to `rows` of the selected messages after a place, however few match.

    One state costs at most 5,000 rows. With `ids`, there is one page.
    """
    if selection.ids:
        messages = [each.message async for each in _read_by_id(session, selection)]
        return Page(messages, len(messages), None)
    found: list[tuple[Place, UndeliveredMessage]] = []
    read = 0
    for table, first in _places(selection, after):
        key = first
        for size in table.blocks:
            seen, key, more = await _read_block(session, selection, table, key, size)
            found += [(Place(table, each.key), each.message) for each in more]
            read += seen
            if len(found) > rows:
                return Page([each for _, each in found[:rows]], read, str(found[rows - 1][0]))
            if seen < size:
                break
        else:
            return Page([each for _, each in found], read, str(Place(table, key)))
    return Page([each for _, each in found], read, None)


def _places(selection: Selection, after: str | None) -> Iterator[Place]:
    """Where to read: after the place, and then the later tables from their start."""
    place = None if after is None else Place.parse(after)
    for table in tables(selection):
        if place is None:
            yield Place(table, table.first)
        elif place.table is table:
            yield place
            place = None


async def _read_block(
    session: OperatorSession,
    selection: Selection,
    table: Table,
    after: tuple[object, ...],
    rows: int,
) -> Block:
    """The selected messages among the next `rows` of a table after a key."""
    parameters = selection.parameters() | dict(zip(table.names, after, strict=True))
    found = await session.read(table.statement, MessageRow, parameters | {"rows": rows})
    reached = found[0].reached
    return Block(
        found[0].seen,
        after if reached is None else tuple(reached.split("/")),
        _matches(found, selection),
    )


async def _read_by_id(session: OperatorSession, selection: Selection) -> AsyncGenerator[Keyed]:
    ids = tuple(dict.fromkeys(selection.ids))
    for start in range(0, len(ids), PAGE_ROWS):
        some = msgspec.structs.replace(selection, ids=ids[start : start + PAGE_ROWS])
        if selection.states != ("dead",):
            rows = await session.read("waiting_find", MessageRow, some.parameters())
            for each in _matches(rows, some):
                yield each
        if "dead" in selection.states:
            async for each in _read_table(session, some, DEAD):
                yield each


def _matches(rows: Sequence[MessageRow], selection: Selection) -> list[Keyed]:
    found = [
        Keyed(tuple(row.place.split("/")), row.message()) for row in rows if row.place is not None
    ]
    return [each for each in found if selection.type in {None, each.message.type}]
