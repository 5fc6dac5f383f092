"""Erase what is stored of one entity: in its events, their messages, and the archive files."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from anyio import to_thread

from dsql_outbox.outbox import (
    RESERVED_HEADERS,
    ArchivedEvent,
    EntityErasure,
    SettingsError,
    Touched,
    array_literal,
    listed_key,
    open_place,
    parse_event,
    plain_array,
    subject_key,
)
from dsql_outbox.publisher.operator.operations import OperationEntry
from dsql_outbox.publisher.session import OperatorSession, OperatorTransaction

from .job import LifeJob
from .rewrite import ArchiveRow, archive_rows, place_of, rewrite
from .run import LifeRun
from .stored_touches import touches_of

ERASED: Final = "erased"
"""The text that replaces an error text."""

MAX_ROWS: Final = 2_900
"""Most rows of one transaction. Aurora DSQL allows 3,000."""

MAX_BYTES: Final = 8 << 20
"""Most bytes of one transaction. Aurora DSQL allows 10 MiB."""

_EVENTS: Final = 300
_EVENT_BYTES: Final = 2 << 20
_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode
_encode: Final = msgspec.json.Encoder().encode


class Notice(NamedTuple):
    """The event that says that an entity was erased: what is older than `version` is erased."""

    erased_at: str
    id: UUID
    event_id: UUID
    version: int


def erasure_id(event_id: UUID, erasure: EntityErasure, *, ids: bool) -> UUID:
    """The id of an erasure: that of its event, and a hash of what is erased.

    So the same command can go on with it, though the row does not say what is erased.
    """
    fields = None if erasure.fields is None else erasure.fields.texts
    return UUID(bytes=sha256(event_id.bytes + _encode([fields, ids])).digest()[:16])


def _pseudonym_of(notice: Notice) -> str:
    return f"erased-{notice.id.hex}"


class EraseProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How far an erasure is.

    `read` events of the entity were looked at, of `total`. `events` of them were changed, with
    `messages` in the outbox and `dead_letters`, and `files` of the archive were written anew.
    `version` is that of the event that says so; None if nothing was to be erased. `entity_id` is
    the pseudonym, if there is one.
    """

    read: int = 0
    total: int = 0
    events: int = 0
    messages: int = 0
    dead_letters: int = 0
    files: int = 0
    version: int | None = None
    entity_id: str | None = None


Announce = Callable[[EntityErasure], Awaitable[None]]
"""Writes the event that says that an entity is erased, and records the erasure."""


class EraseRun(LifeRun[EraseProgress]):
    """A run of `Erasures.erase`."""

    def __init__(  # noqa: PLR0913 - one argument per option
        self,
        session: OperatorSession,
        erasure: EntityErasure,
        entry: OperationEntry,
        announce: Announce,
        *,
        ids: bool,
        archive: Sequence[str],
        dry_run: bool,
        lease: float,
    ) -> None:
        self._session = session
        self._erasure = erasure
        self._entry = entry
        self._announce = announce
        self._ids = ids
        self._renames = ids
        self._archive = archive
        self._dry_run = dry_run
        self._lease = lease
        super().__init__(EraseProgress())

    async def _run(self) -> AsyncGenerator[EraseProgress]:
        if self._dry_run:
            version, _ = await self._state()
            async for _ in self._pass(None, version + 1, None):
                yield self.progress
            return
        async with LifeJob.running(self._session, "erase", lease=self._lease) as job:
            self._renames = self._ids and not await self._is_renamed()
            notice = await self._noticed(job)
            if notice is None:
                return
            if self._renames:
                pseudonym = await self._pseudonym(notice)
                self._erasure = self._erasure._replace(pseudonym=pseudonym)
            self._count(version=notice.version, entity_id=self._erasure.pseudonym)
            self._count(read=-self.progress.read)
            async for _ in self._pass(job, notice.version, notice):
                yield self.progress
            if self.is_stopping:
                return
            await self._finish(job, notice)
            yield self.progress

    async def _noticed(self, job: LifeJob) -> Notice | None:
        """The notice of this erasure, or of an unfinished one; None if nothing is to be erased."""
        version, state = await self._state()
        is_clean = self._erasure.of_state(state) is None
        unfinished = await self._unfinished()
        # To rename, all versions are erased in the end, so a state that is new does not matter.
        if not unfinished or not (is_clean or self._renames):
            if is_clean and not self._renames and not await self._finds_any(version):
                return None
            await job.renew()
            await self._entry.write()
            await self._announce(self._erasure)
            unfinished = await self._unfinished()
        return unfinished[0]

    async def _is_renamed(self) -> bool:
        """Whether the id is the pseudonym of an erasure that is not finished."""
        rows = await self._session.read("erasure_open", Notice, self._key())
        return any(_pseudonym_of(row) == self._erasure.entity_id for row in rows)

    async def _unfinished(self) -> Sequence[Notice]:
        """The unfinished erasures of the same fields, the latest first."""
        rows = await self._session.read("erasure_open", Notice, self._key())
        return [
            row for row in rows if row.id == erasure_id(row.event_id, self._erasure, ids=self._ids)
        ]

    async def _pseudonym(self, notice: Notice) -> str:
        """The pseudonym that an interrupted erasure has given to some events, or a new one."""
        for row in await self._session.read("erasure_open", Notice, self._key()):
            named = {"entity_type": self._erasure.entity_type, "new_id": _pseudonym_of(row)}
            ((is_used,),) = await self._session.rows("erase_pseudonym", named)
            if is_used:
                return _pseudonym_of(row)
        return _pseudonym_of(notice)

    async def _finds_any(self, version: int) -> bool:
        async for _ in self._pass(None, version + 1, None):
            if self.progress.events or self.progress.messages or self.progress.dead_letters:
                self.progress = EraseProgress()
                return True
        self.progress = EraseProgress()
        return False

    async def _state(self) -> tuple[int, str]:
        rows = await self._session.rows("entity_state", self._key())
        if not rows:
            name = subject_key(*self._erasure[:2])
            raise SettingsError(f"no event has touched entity {name} of {self._session.schema}")
        return rows[0][0], rows[0][1]

    async def _pass(
        self, job: LifeJob | None, before: int, notice: Notice | None
    ) -> AsyncGenerator[None]:
        """Erase in all events before a version. Without a job, only count what would be."""
        self._count(total=before - 1 - self.progress.total)
        files: set[int] = set()
        after = 0
        while not self.is_stopping:
            asked = {**self._key(), "after": after, "before": before, "rows": _EVENTS}
            found = await self._session.read("erase_stream", _StreamRow, asked)
            if not found:
                break
            rest = [row for row in found if row.archive is None]
            files.update(row.archive for row in found if row.archive is not None)
            if job is not None:
                await job.renew()
            while rest and not self.is_stopping:
                some = [*_sized(rest)]
                await self._change(job, some, notice)
                del rest[: len(some)]
                yield
            after = found[-1].entity_version
            self._count(read=len(found))
            yield
        if files and not self.is_stopping:
            async for _ in self._pass_files(job, files, notice):
                yield

    async def _change(
        self, job: LifeJob | None, rows: Sequence["_StreamRow"], notice: Notice | None
    ) -> None:
        """Erase in some events, in as few transactions as they need."""
        waiting = [rows]
        while waiting:
            some = waiting.pop()
            batch = _Batch(self._erasure, some, notice)

            async def work(transaction: OperatorTransaction, batch: "_Batch" = batch) -> None:
                if job is None:
                    await batch.look(transaction)
                    return
                await batch.change(transaction)
                if batch.is_too_large and len(batch.rows) > 1:
                    raise _TooLarge
                await job.step_in(transaction, pending=None, erased=batch.events)

            try:
                await self._session.transaction(work)
            except _TooLarge:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
                continue
            self._count(
                events=batch.events, messages=batch.messages, dead_letters=batch.dead_letters
            )

    async def _pass_files(
        self, job: LifeJob | None, numbers: set[int], notice: Notice | None
    ) -> AsyncGenerator[None]:
        async for row in archive_rows(self._session):
            if row.facts.number not in numbers or self.is_stopping:
                continue
            await self._change_file(job, row, notice)
            yield

    async def _change_file(
        self, job: LifeJob | None, row: ArchiveRow, notice: Notice | None
    ) -> None:
        places = [open_place(name) for name in (self._archive or (row.place,))]
        place = await to_thread.run_sync(place_of, places, row)
        events = await to_thread.run_sync(row.facts.read, place)
        changed = await to_thread.run_sync(partial(_changed_lines, self._erasure, events))
        if not changed:
            return
        if job is not None and notice is not None:
            lines = [changed[each.id].line if each.id in changed else each for each in events]
            work = partial(_note_lines, self._erasure, notice, [*changed.values()])
            await rewrite(
                self._session, job, place, row.facts, lines, work=work, erased=len(changed)
            )
        self._count(events=len(changed), files=1)

    async def _finish(self, job: LifeJob, notice: Notice) -> None:
        key = self._key()
        done = {"done": plain_array(row.id for row in await self._unfinished())}
        if not self._renames:
            await self._session.count("erasure_finish", key | done | {"new_id": key["entity_id"]})
            return
        new_id = self._erasure.pseudonym
        while True:
            version, state = await self._state()
            async for _ in self._pass(job, version + 1, notice):
                pass
            if self.is_stopping:
                return
            left = self._erasure.of_state(state)
            row = {**key, **done, "new_id": new_id, "version": version}

            async def move(
                transaction: OperatorTransaction,
                row: Mapping[str, Any] = row,
                state: str = state if left is None else left.data,
            ) -> bool:
                await job.step_in(transaction, pending=None)
                moved = await transaction.count("erase_entity_move", {**row, "state": state})
                if moved:
                    await transaction.change("erase_entity_delete", row, 1)
                    named = {"text": _encode(key["entity_id"]).decode()}
                    await transaction.count("erase_conflicts", named)
                    await transaction.count("erasure_finish", row)
                return bool(moved)

            if await self._session.transaction(move):
                return

    def _key(self) -> dict[str, str]:
        return {"entity_type": self._erasure.entity_type, "entity_id": self._erasure.entity_id}

    def _count(
        self, *, version: int | None = None, entity_id: str | None = None, **more: int
    ) -> None:
        sums = {name: getattr(self.progress, name) + count for name, count in more.items()}
        if version is not None:
            sums |= {"version": version}
        self.progress = msgspec.structs.replace(
            self.progress, **sums, entity_id=entity_id or self.progress.entity_id
        )


class _TooLarge(Exception):
    """The events of a transaction have more rows or bytes than one may change."""


class _StreamRow(NamedTuple):
    """A row of ``erase_stream``."""

    entity_version: int
    event_id: UUID
    event_size: int
    archive: int | None


class _EventRow(NamedTuple):
    """A row of ``erase_events``."""

    id: UUID
    data: str
    fingerprint: str
    headers: str | None
    touches: str
    is_erased: bool


class _MessageRow(NamedTuple):
    """A row of ``erase_messages``."""

    shard: int
    position: int
    event_id: UUID
    headers: str
    bytes: int
    is_other: bool
    error: str | None


class _LetterRow(NamedTuple):
    """A row of ``erase_letters``."""

    event_id: UUID
    died_at: str
    headers: str
    error: str
    is_other: bool


def _sized(rows: Sequence[_StreamRow]) -> Sequence[_StreamRow]:
    """The first rows, with bytes for one transaction; one at least."""
    size = count = 0
    for row in rows:
        size += row.event_size
        if count and size > _EVENT_BYTES:
            break
        count += 1
    return [*islice(rows, count)]


class _ChangedEvent(NamedTuple):
    """An event in which something is erased, and what of it: `touches` are those of its row."""

    before: _EventRow
    data: str
    fingerprint: str
    headers: str | None
    touches: str
    header_data: Sequence[tuple[Touched, str]]
    """The headers that are others now, each with the touch by which it is stored."""
    hides: Callable[[str], bool]
    """Whether a text holds something that was erased."""


def _changed(erasure: EntityErasure, row: _EventRow) -> _ChangedEvent | None:
    """What is left of an event; None if nothing is to be erased in it."""
    touches = [each.touched for each in touches_of(row.id, row.touches)]
    is_subject = _is_of(erasure, touches[0])
    erased = erasure.of_event(row.data, is_subject=is_subject)
    hides = _nothing if erased is None else erased.is_named_in
    headers = None if row.headers is None else _without(erasure, row.headers, hides)
    if erased is None and headers == row.headers:
        return None
    data = row.data if erased is None else erased.data
    before, after = parse_event(row.data), parse_event(data)
    parts = zip(touches, before.touches, after.touches, strict=True)
    return _ChangedEvent(
        row,
        data,
        after.fingerprint.hex(),
        headers,
        _renamed_touches(erasure, touches, row.touches),
        [(touch, new.header) for touch, old, new in parts if old.header != new.header],
        hides,
    )


def _nothing(text: str) -> bool:
    del text
    return False


def _is_of(erasure: EntityErasure, touch: Touched) -> bool:
    return (touch.entity_type, touch.entity_id) == erasure[:2]


def _renamed_touches(erasure: EntityErasure, touches: Sequence[Touched], stored: str) -> str:
    if erasure.pseudonym is None:
        return stored
    return _encode(
        [
            msgspec.structs.replace(touch, entity_id=erasure.pseudonym)
            if _is_of(erasure, touch)
            else touch
            for touch in touches
        ]
    ).decode()


def _without(erasure: EntityErasure, headers: str, hides: Callable[[str], bool]) -> str:
    """Headers without those that are named, or hold something that was erased.

    The same text if none of them is. The outbox's own headers stay.
    """
    try:
        found = _decode_headers(headers)
    except msgspec.MsgspecError:  # of another program: it cannot be sent either
        return headers
    names: set[str] = set() if erasure.fields is None else erasure.fields.names
    left = {
        name: value
        for name, value in found.items()
        if name in RESERVED_HEADERS or not (name in names or hides(value))
    }
    if erasure.pseudonym is not None and "entities" in left:
        old = listed_key(*erasure[:2]) + "@"
        new = listed_key(erasure.entity_type, erasure.pseudonym) + "@"
        listed = left["entities"].split(",")
        left["entities"] = ",".join(
            new + each.removeprefix(old) if each.startswith(old) else each for each in listed
        )
    return headers if left == found else _encode(left).decode()


class _Batch:
    """The events of one transaction, and what else holds their bytes."""

    def __init__(
        self, erasure: EntityErasure, rows: Sequence[_StreamRow], notice: Notice | None
    ) -> None:
        self.rows = rows
        self._erasure = erasure
        self._notice = notice
        self._versions = {row.event_id: row.entity_version for row in rows}
        self._begin()

    def _begin(self) -> None:
        """Count from zero: a transaction may run again."""
        self.events = self.messages = self.dead_letters = 0
        self._changes = 0
        self._bytes = 0

    @property
    def is_too_large(self) -> bool:
        """Whether the transaction has changed more than one may."""
        return self._changes > MAX_ROWS or self._bytes > MAX_BYTES

    async def look(self, transaction: OperatorTransaction) -> None:
        """Count what would be changed."""
        self._begin()
        changed, concerned = await self._read(transaction)
        self.events = len(changed)
        messages, letters = await self._named(transaction, concerned)
        by_id = {each.before.id: each for each in changed}
        self.messages = len([*self._messages(messages, by_id)])
        self.dead_letters = len([*self._letters(letters, by_id)])

    async def change(self, transaction: OperatorTransaction) -> None:
        """Change the events first: their locks keep others from making rows that name them."""
        self._begin()
        changed, concerned = await self._read(transaction)
        by_id = {each.before.id: each for each in changed}
        self.events = len(changed)
        if changed:
            await transaction.change(
                "erase_events_change", self._event_columns(changed), len(changed)
            )
            await self._change_headers(transaction, changed)
        messages, letters = await self._named(transaction, concerned)
        await self._change_messages(transaction, messages, by_id)
        found = [*self._letters(letters, by_id)]
        self._add(len(found), sum(len(headers) for _, headers in found))
        self.dead_letters = len(found)
        if found:
            columns = {
                "event_ids": plain_array(row.event_id for row, _ in found),
                "died_at": array_literal(row.died_at for row, _ in found),
                "headers": array_literal(headers for _, headers in found),
                "error": ERASED,
            }
            await transaction.change("erase_letters_change", columns | self._names(), len(found))

    async def _read(
        self, transaction: OperatorTransaction
    ) -> tuple[list[_ChangedEvent], list[UUID]]:
        """The events to change, and the ids of those whose messages are looked at."""
        ids = {"event_ids": plain_array(row.event_id for row in self.rows)}
        rows = await transaction.read("erase_events", _EventRow, ids)
        found = [(row, _changed(self._erasure, row)) for row in rows]
        concerned = [row.id for row, each in found if each is not None or row.is_erased]
        return [each for _, each in found if each is not None], concerned

    async def _named(
        self, transaction: OperatorTransaction, concerned: Sequence[UUID]
    ) -> tuple[Sequence[_MessageRow], Sequence[_LetterRow]]:
        if not concerned:
            return (), ()
        ids = {"event_ids": plain_array(concerned)}
        messages = await transaction.read("erase_messages", _MessageRow, ids)
        return messages, await transaction.read("erase_letters", _LetterRow, ids)

    def _messages(
        self, rows: Sequence[_MessageRow], changed: Mapping[UUID, _ChangedEvent]
    ) -> list[tuple[_MessageRow, str]]:
        """The messages to change, with their headers."""
        found: list[tuple[_MessageRow, str]] = []
        for row in rows:
            headers = _without(self._erasure, row.headers, _hides(changed, row.event_id))
            is_told = row.error not in (None, ERASED)
            if row.is_other or is_told or headers != row.headers or row.event_id in changed:
                found.append((row, headers))
        return found

    def _letters(
        self, rows: Sequence[_LetterRow], changed: Mapping[UUID, _ChangedEvent]
    ) -> list[tuple[_LetterRow, str]]:
        found: list[tuple[_LetterRow, str]] = []
        for row in rows:
            headers = _without(self._erasure, row.headers, _hides(changed, row.event_id))
            if row.is_other or row.error != ERASED or headers != row.headers:
                found.append((row, headers))
        return found

    async def _change_messages(
        self,
        transaction: OperatorTransaction,
        rows: Sequence[_MessageRow],
        changed: Mapping[UUID, _ChangedEvent],
    ) -> None:
        found = self._messages(rows, changed)
        if self._erasure.pseudonym is not None and self._notice is not None:
            told = [row for row, _ in found if row.event_id == self._notice.event_id]
            found = [each for each in found if each[0].event_id != self._notice.event_id]
            if told:
                data = changed[self._notice.event_id].before.data
                await transaction.change(
                    "erase_notice_keep", _message_keys(told) | {"data": data}, len(told)
                )
        self.messages = len(found)
        self._add(len(found), sum(row.bytes + len(headers) for row, headers in found))
        if found:
            keys = _message_keys([row for row, _ in found])
            columns = keys | {"headers": array_literal(headers for _, headers in found)}
            # Fewer rows: a publisher has settled one meanwhile, perhaps as a dead letter.
            await transaction.change("erase_messages_change", columns | self._names(), len(found))
        told = [row for row, _ in found if row.error not in (None, ERASED)]
        self._add(len(told), 0)
        if told:
            columns = _message_keys(told) | {"error": ERASED}
            await transaction.change("erase_errors_change", columns, len(told))

    async def _change_headers(
        self, transaction: OperatorTransaction, changed: Sequence[_ChangedEvent]
    ) -> None:
        found = [(each.before.id, *pair) for each in changed for pair in each.header_data]
        self._add(len(found), sum(len(data) for _, _, data in found))
        if found:
            columns = {
                "types": array_literal(touch.entity_type for _, touch, _ in found),
                "ids": array_literal(touch.entity_id for _, touch, _ in found),
                "versions": plain_array(touch.version for _, touch, _ in found),
                "event_ids": plain_array(event_id for event_id, _, _ in found),
                "data": array_literal(data for _, _, data in found),
            }
            await transaction.change("erase_headers_change", columns, len(found))
        if self._erasure.pseudonym is not None:
            versions = plain_array(self._versions[each.before.id] for each in changed)
            names = self._names() | {"versions": versions}
            await transaction.change("erase_headers_move", names, len(changed))
            await transaction.change("erase_headers_delete", names, len(changed))
            self._add(2 * len(changed), 0)

    def _event_columns(self, changed: Sequence[_ChangedEvent]) -> dict[str, str]:
        assert self._notice is not None  # noqa: S101 - `look` changes nothing
        self._add(len(changed), sum(len(each.data.encode()) for each in changed))
        return {
            "event_ids": plain_array(each.before.id for each in changed),
            "before": plain_array(each.before.fingerprint for each in changed),
            "data": array_literal(each.data for each in changed),
            "fingerprints": plain_array(each.fingerprint for each in changed),
            "headers": array_literal(each.headers for each in changed),
            "touches": array_literal(each.touches for each in changed),
            "erased_at": self._notice.erased_at,
            **self._names(),
        }

    def _names(self) -> dict[str, str]:
        return _names(self._erasure)

    def _add(self, rows: int, size: int) -> None:
        self._changes += rows
        self._bytes += size


def _hides(changed: Mapping[UUID, _ChangedEvent], event_id: UUID) -> Callable[[str], bool]:
    return changed[event_id].hides if event_id in changed else _nothing


def _names(erasure: EntityErasure) -> dict[str, str]:
    entity_type, entity_id, _, pseudonym = erasure
    return {
        "entity_type": entity_type,
        "entity_id": entity_id,
        "new_id": entity_id if pseudonym is None else pseudonym,
    }


def _message_keys(rows: Sequence[_MessageRow]) -> dict[str, str]:
    return {
        "shards": plain_array(row.shard for row in rows),
        "positions": plain_array(row.position for row in rows),
        "event_ids": plain_array(row.event_id for row in rows),
    }


class _ChangedLine(NamedTuple):
    """An archived event in which something is erased."""

    before: str
    version: int
    line: ArchivedEvent


def _changed_lines(
    erasure: EntityErasure, events: Sequence[ArchivedEvent]
) -> dict[UUID, _ChangedLine]:
    """The events of a file that change, by their ids."""
    found: dict[UUID, _ChangedLine] = {}
    for event in events:
        touches = [each.touched for each in touches_of(event.id, event.touches)]
        version = next((each.version for each in touches if _is_of(erasure, each)), None)
        row = _EventRow(
            event.id,
            event.event,
            event.fingerprint,
            event.headers,
            event.touches,
            is_erased=False,
        )
        changed = None if version is None else _changed(erasure, row)
        if changed is None or version is None:
            continue
        new = dict(changed.header_data)
        line = msgspec.structs.replace(
            event,
            event=changed.data,
            fingerprint=changed.fingerprint,
            headers=changed.headers,
            touches=changed.touches,
            header_data=tuple(
                None if old is None else new.get(touch, old)
                for touch, old in zip(touches, event.header_data, strict=True)
            ),
        )
        found[event.id] = _ChangedLine(event.fingerprint, version, line)
    return found


async def _note_lines(
    erasure: EntityErasure,
    notice: Notice,
    changed: Sequence[_ChangedLine],
    transaction: OperatorTransaction,
) -> None:
    """Change the rows of archived events as their lines were."""
    columns = {
        "event_ids": plain_array(each.line.id for each in changed),
        "before": plain_array(each.before for each in changed),
        "sizes": plain_array(len(each.line.event.encode()) for each in changed),
        "fingerprints": plain_array(each.line.fingerprint for each in changed),
        "touches": array_literal(each.line.touches for each in changed),
        "erased_at": notice.erased_at,
    }
    names = _names(erasure)
    await transaction.change("erase_archived_change", columns | names, len(changed))
    if erasure.pseudonym is not None:
        versions = names | {"versions": plain_array(each.version for each in changed)}
        await transaction.change("erase_headers_move", versions, len(changed))
        await transaction.change("erase_headers_delete", versions, len(changed))
