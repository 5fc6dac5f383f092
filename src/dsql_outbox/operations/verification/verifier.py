"""Read the tables page by page, each page in one snapshot."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec
from anyio import CancelScope, to_thread

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.replay import rows_estimate
from dsql_outbox.operations.run import RowFence, Run
from dsql_outbox.operations.stored_event import touches_in
from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.database.array_literals import plain_array, text_array
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.receipt import Touched
from dsql_outbox.schema.session import Session, SessionTransaction

from .event_check import EventRow, TouchRow, event_findings, touch_pair
from .finding import Fault, Finding, entity_finding
from .message_check import MessageRow, message_findings
from .stream_check import HeaderRow, StreamCheck

EVENT_ROWS: Final = 1_000
EVENT_BYTES: Final = 4 << 20
"""Most bytes of a page of events or messages that has two rows or more."""

TOUCH_ROWS: Final = 3_000
HEADER_ROWS: Final = 5_000
OTHER_ROWS: Final = 1_000

_LAST_ID: Final = UUID(int=(1 << 128) - 1)

_Place = Mapping[str, object]


class VerifyProgress(msgspec.Struct, frozen=True, rename="camel"):
    """What was read so far, and how many findings there are.

    `total` is about the number of stored events; None if it is not known. `skipped` of the
    events were saved before `since`.
    """

    events: int = 0
    total: int | None = None
    skipped: int = 0
    headers: int = 0
    entities: int = 0
    messages: int = 0
    dead_letters: int = 0
    replays: int = 0
    findings: int = 0


class Verifier(Operator):
    """Compares the stored events, headers, entities and messages with each other.

    It only reads, in short transactions, on two connections: on one the events with their bytes,
    on the other the rest. The constructor does no I/O. Use ``async with`` or
    call `close`.

        >>> async with Verifier(database) as verifier:
        ...     [finding async for finding in verifier.verify()]
        []
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, read_only=True)
        self._beside = Session(database, read_only=True)

    async def close(self) -> None:
        """Close both connections."""
        await super().close()
        await self._beside.close()

    def verify(self, *, since: datetime | None = None, rate: float | None = None) -> "Verification":
        """Begin to verify. With `since`, the bytes of events that were saved earlier are not read.

        `rate` is the limit in rows per second, of all tables together; None is no limit. A time
        without a zone is in UTC. Raises `SettingsError` for a rate that is not above 0, and
        `SchemaError` if the tables are missing, and the driver's errors, when the run is iterated
        over.
        """
        return Verification(self._session, self._beside, since, Pace(rate))


class Verification(Run[VerifyProgress, Finding]):
    """A run of `Verifier.verify`, which yields the findings. Another run begins anew.

    Writers and publishers may work meanwhile: each page of rows is read in one snapshot,
    which is later than that of the page before. Memory grows neither with the number of events
    nor with that of findings.
    """

    def __init__(
        self, session: Session, beside: Session, since: datetime | None, pace: Pace
    ) -> None:
        self._session = session
        self._beside = beside
        self._since = None if since is None else _text_of(since)
        super().__init__(VerifyProgress(), pace)

    async def _work(self) -> AsyncGenerator[Finding]:
        self.note(total=await rows_estimate(self._session, "business_events"))
        # The client works for the events, and the server for the others: at the same time, both
        # take the time of one.
        others = self.one_by_one(
            self._streams(),
            self._others(),
            self._messages("verify_messages", "messages", _FIRST_MESSAGE),
            self._messages("verify_letters", "dead_letters", _FIRST_LETTER),
        )
        tables = _side_by_side(self._events(), others)
        every = self.one_by_one(tables, self._erasures())
        async with aclosing(every) as found:
            async for finding in found:
                self.count(findings=1)
                yield finding

    async def _goes_on(self) -> bool:
        """Rest as the rate asks, before a page is read or checked. False after a stop."""
        return await self.rest(RowFence())

    def _count_page(self, rows: int, **counts: int) -> None:
        """Count a page of rows that was read and checked."""
        now = monotonic()
        self.pace.spend(rows, now, now)
        self.count(**counts)

    async def _events(self) -> AsyncGenerator[Finding]:
        """The events in the order of their ids."""
        async with aclosing(_ahead(self._event_page, UUID(int=0))) as pages:
            async for page in pages:
                if not await self._goes_on():
                    return
                for finding in await to_thread.run_sync(page.findings):
                    yield finding
                skipped = sum(not row.is_due for row in page.rows)
                self._count_page(len(page.rows), events=len(page.rows), skipped=skipped)

    async def _event_page(self, first: UUID) -> "_EventPage":
        asked = {
            "rows": EVENT_ROWS,
            "bytes": EVENT_BYTES,
            "since": self._since,
            "first": str(first),
        }

        async def read(transaction: SessionTransaction) -> _EventPage:
            found = await transaction.fetch_rows("verify_events", asked)
            page = _EventPage([EventRow(*row) for row in found])
            for some in page.touches_in_parts():
                rows = await transaction.fetch_rows("verify_touches", some)
                page.stored += [TouchRow(*row) for row in rows]
            return page

        return await self._session.snapshot(read)

    async def _streams(self) -> AsyncGenerator[Finding]:
        check = StreamCheck()
        first: _Place = {"entity_type": "", "entity_id": "", "version": 0}
        async with aclosing(_ahead(self._header_page, first)) as pages:
            async for page in pages:
                if not await self._goes_on():
                    return
                for finding in await to_thread.run_sync(page.findings, check):
                    yield finding
                self._count_page(len(page.rows), headers=len(page.rows))
        for finding in check.end():
            yield finding

    async def _header_page(self, after: _Place) -> "_HeaderPage":
        asked = {**after, "rows": HEADER_ROWS}
        found = await self._beside.fetch_rows("verify_headers", asked)
        return _HeaderPage([HeaderRow(*row) for row in found])

    async def _others(self) -> AsyncGenerator[Finding]:
        for part in _PARTS:
            place: _Place = part.start
            seen = OTHER_ROWS
            while seen == OTHER_ROWS:
                if not await self._goes_on():
                    return
                asked = {**place, "rows": OTHER_ROWS}
                rows = await self._beside.fetch_rows(part.statement, asked)
                seen, *reached = rows[0][: 1 + len(place)]
                place = dict(zip(place, map(_as_text, reached), strict=True))
                for row in rows:
                    cells = row[1 + len(place) :]
                    if cells[0] is not None:
                        yield part.finding(cells)
                self._count_page(seen, **{part.counts: seen})

    async def _messages(
        self, statement: str, counts: str, first: _Place
    ) -> AsyncGenerator[Finding]:
        """The messages or the dead letters in the order of their key."""
        read = partial(self._message_page, statement)
        async with aclosing(_ahead(read, first)) as pages:
            async for page in pages:
                for finding in await to_thread.run_sync(page.findings):
                    yield finding
                self._count_page(len(page.rows), **{counts: len(page.rows)})
                if not await self._goes_on():
                    return

    async def _message_page(self, statement: str, after: _Place) -> "_MessagePage":
        asked = {**after, "rows": OTHER_ROWS, "bytes": EVENT_BYTES}
        found = await self._beside.fetch_rows(statement, asked)
        return _MessagePage([MessageRow(*row) for row in found])

    async def _erasures(self) -> AsyncGenerator[Finding]:
        rows = await self._session.fetch_rows("verify_erasures", {})
        for erased_at, event_id, is_finished, is_stored in rows:
            fault: Fault = "missing-event" if is_finished else "unfinished-erasure"
            text = "there is no such event"
            if not is_finished:
                text = "the erasure is not finished: run the same command again"
            elif is_stored:
                fault, text = "other-event", "its event is of another entity or version"
            yield Finding(fault, "outbox_erasures", f"{erased_at}/{event_id}", text)


async def _side_by_side(*parts: AsyncGenerator[Finding]) -> AsyncGenerator[Finding]:
    """The findings of parts that run at the same time, each up to its next finding."""
    waiting = {asyncio.ensure_future(anext(part)): part for part in parts}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                part = waiting.pop(task)
                try:
                    finding = task.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(anext(part))] = part
                yield finding
    finally:
        for task in waiting:
            task.cancel()
        with CancelScope(shield=True):  # a part can be closed once its task has ended
            await asyncio.gather(*waiting, return_exceptions=True)
            for part in parts:
                await part.aclose()


class _Page(Protocol):
    """A page of rows."""

    @property
    def following(self) -> Any:
        """The place of the next page; None after the last one."""
        ...


Page = TypeVar("Page", bound=_Page)


async def _ahead(
    read: Callable[[Any], Coroutine[Any, Any, Page]], first: object
) -> AsyncGenerator[Page]:
    """All pages from the place `first`. The next page is read while one is checked."""
    reading: asyncio.Task[Page] | None = asyncio.create_task(read(first))
    try:
        while reading is not None:
            page = await reading
            following = page.following
            reading = None if following is None else asyncio.create_task(read(following))
            yield page
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class _HeaderPage:
    """A page of headers."""

    def __init__(self, rows: Sequence[HeaderRow]) -> None:
        self.rows = rows

    @property
    def following(self) -> _Place | None:
        """The last key; None after the last page."""
        if len(self.rows) < HEADER_ROWS:
            return None
        return {**_key(self.rows[-1]), "version": self.rows[-1].entity_version}

    def findings(self, check: StreamCheck) -> list[Finding]:
        """What is wrong with the headers of the page."""
        return [*check.findings(self.rows)]


class _MessagePage:
    """A page of messages or dead letters."""

    def __init__(self, rows: Sequence[MessageRow]) -> None:
        self.rows = rows

    @property
    def following(self) -> _Place | None:
        """The last key; None after the last page, which is empty since bytes end a page, too."""
        return self.rows[-1].place if self.rows else None

    def findings(self) -> list[Finding]:
        """What is wrong with the messages of the page."""
        return [finding for row in self.rows for finding in message_findings(row)]


class _EventPage:
    """A page of events with the headers and entities of their touches, from one snapshot."""

    def __init__(self, rows: Sequence[EventRow]) -> None:
        self.rows = rows
        self.stored: list[TouchRow] = []
        self._touches = [(row.is_due and touches_in(row.touches)) or () for row in rows]

    @property
    def following(self) -> UUID | None:
        """The least id that may follow; None after the last page."""
        if not self.rows or self.rows[-1].id == _LAST_ID:
            return None
        return UUID(int=self.rows[-1].id.int + 1)

    def touches_in_parts(self) -> Iterator[dict[str, str]]:
        """The parameters of ``verify_touches``."""
        each = zip(self.rows, self._touches, strict=True)
        pairs = ((row.id, touch) for row, touches in each for touch in touches)
        while some := [*islice(pairs, TOUCH_ROWS)]:
            yield _touch_columns(some)

    def findings(self) -> list[Finding]:
        """What is wrong with the events of the page."""
        return [
            finding
            for row, touches, stored in self._with_stored()
            if row.is_due
            for finding in event_findings(row, touches, stored)
        ]

    def _with_stored(self) -> Iterator[tuple[EventRow, Sequence[Touched], Sequence[TouchRow]]]:
        """Each event with its touches, and the headers and entities of these."""
        stored = iter(self.stored)
        for row, touches in zip(self.rows, self._touches, strict=True):
            yield row, touches, [*islice(stored, len(touches))]


def _touch_columns(pairs: Sequence[tuple[UUID, Touched]]) -> dict[str, str]:
    keys = [touch_pair(touch) for _, touch in pairs]
    return {
        "numbers": plain_array(range(len(pairs))),
        "entity_types": text_array([entity_type for entity_type, _ in keys]),
        "entity_ids": text_array([entity_id for _, entity_id in keys]),
        "versions": plain_array(touch.version for _, touch in pairs),
        "event_ids": plain_array(event_id for event_id, _ in pairs),
    }


class _Part(NamedTuple):
    """Rows that a statement compares by itself, and the place before the first of them."""

    statement: str
    counts: str
    start: _Place
    finding: Callable[[Sequence[Any]], Finding]


def _entity(cells: Sequence[Any]) -> Finding:
    entity_type, entity_id, version, event_id, header_event = cells
    key = entity_type, entity_id
    if header_event is None:
        return entity_finding("entity-ahead", key, f"its version {version} has no header")
    text = f"its last event is {event_id}, that of its version {version} is {header_event}"
    return entity_finding("other-event", key, text)


def _replay(cells: Sequence[Any]) -> Finding:
    event_id, number, is_stored, is_next = cells
    fault: Fault = "other-position"
    text = "the position is not above that of the event and of the replay before it"
    if not is_stored:
        fault, text = "missing-event", "there is no such event"
    elif not is_next:
        fault, text = "gap", f"replay {number - 1} is missing before it"
    return Finding(fault, "outbox_replays", f"{event_id}/{number}", text)


_BEFORE: Final = str(UUID(int=0))

_FIRST_MESSAGE: Final[_Place] = {"shard": -1, "position": 0, "event_id": _BEFORE}
_FIRST_LETTER: Final[_Place] = {"event_id": _BEFORE, "died_at": "-infinity"}
_PARTS: Final = (
    _Part("verify_entities", "entities", {"entity_type": "", "entity_id": ""}, _entity),
    _Part("verify_replays", "replays", {"event_id": _BEFORE, "number": 0}, _replay),
)


def _key(row: HeaderRow) -> dict[str, str]:
    return {"entity_type": row.entity_type, "entity_id": row.entity_id}


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


def _text_of(time: datetime) -> str:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()
