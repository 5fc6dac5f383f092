"""The reads of `Records`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox.message import Message, subject_key
from dsql_outbox.outbox.receipt import Touched
from dsql_outbox.outbox.settings import DEFAULT_SOURCE
from dsql_outbox.schema.outbox_rows import Fault, OutboxRow

from .operations import last_operation
from .stored_event import headers_in, made_headers, touches_in
from .tool import Operator
from .whereabouts import Finding, StoredEvent, read_findings

_READ: Final = 10_000
"""Stored events that are read to find the newest."""


class EventRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A stored event, without its payload.

    `subject` is the type and the id of its subject. `position` is in microseconds, and
    `payload_bytes` the size of the payload. `touches` are the entities with the versions
    that the event gave them. `erased_at` is when something in it was erased. The
    call of a writer that stored it has `write_id`.
    """

    id: UUID
    name: str
    type: str
    subject: tuple[str, str]
    subject_version: int
    topic: str
    shard: int
    position: int
    created_date: datetime | None
    saved_date: datetime
    payload_bytes: int
    headers: Mapping[str, str]
    touches: tuple[Touched, ...]
    write_id: UUID
    erased_at: datetime | None = None


class EntityRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The current state of an entity. `state` is JSON, `event_id` that of its last event."""

    entity_type: str
    entity_id: str
    version: int
    shard: int
    state: str
    event_id: UUID
    created_at: datetime
    updated_at: datetime


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A version of an entity and the event that made it.

    `is_subject` says whether the entity is the subject of the event.
    """

    version: int
    event_id: UUID
    name: str
    type: str
    saved_date: datetime
    topic: str
    is_subject: bool


class NewestEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event in a list of the newest ones. `subject` is ``TYPE/ID``."""

    id: UUID
    type: str
    subject: str
    subject_version: int
    saved_date: datetime


class ReplayRecord(msgspec.Struct, frozen=True, rename="camel"):
    """A replay of an event, from 1 on; `replayed_by` is a database role."""

    number: int
    reason: str
    replayed_by: str
    replayed_at: datetime


class Records(Operator):
    """Reads stored events and entities. Every read but that of `newest` is a look-up by key.

    The constructor does no I/O. Use ``async with`` or call `close`. All methods raise
    `SchemaError` if the tables are missing, and the driver's errors.
    """

    async def event(self, event_id: UUID) -> EventRecord | None:
        """The stored event, or None."""
        rows = await self._session.fetch("record_event", _event, {"event_id": event_id})
        return rows[0] if rows else None

    async def newest(self, *, rows: int = 50) -> tuple[NewestEvent, ...] | None:
        """Up to `rows` events, the one that was saved last first; None if that is unknown.

        The database has no index of their times, so this reads up to 10,000 events. It is unknown
        if more are stored.
        """
        found = await self._session.fetch("events_newest", _newest, {}, limit=_READ, rows=rows)
        return None if found and found[0][1] > _READ else tuple(each for each, _ in found)

    async def newest_waiting(self, *, rows: int = 50) -> tuple[NewestEvent, ...]:
        """Up to `rows` events whose messages wait, the newest message first."""
        found = await self._session.fetch("waiting_newest", _newest, {}, rows=rows)
        return tuple(each for each, _ in found)

    async def payload(self, event_id: UUID) -> str | None:
        """The exact text of the stored event, or None."""
        rows = await self._session.fetch_rows("record_payload", {"event_id": event_id})
        return rows[0][0] if rows else None

    async def message(self, event_id: UUID) -> Message | Fault | None:
        """The message of a stored event, or why there is none; None: there is no such event.

        What is not stored with an event has a default: the source, and 0 for its attempt, the
        lease and the position before.
        """
        record, text = await self.event(event_id), await self.payload(event_id)
        if record is None:
            return None
        made = made_headers(
            record.id, record.type, record.created_date, record.touches, DEFAULT_SOURCE
        )
        row = OutboxRow(
            shard=record.shard,
            position=record.position,
            event_id=str(record.id),
            previous_position=0,
            subject_type=record.subject[0],
            subject_id=record.subject[1],
            subject_version=record.subject_version,
            topic=record.topic,
            headers=msgspec.json.encode({**record.headers, **made}).decode(),
            payload=text,
            created_us=round(record.saved_date.timestamp() * 1_000_000),
            predecessor=False,
        )
        return row.message(attempt=0, picked_up_ns=0, epoch=0)

    async def replays(self, event_id: UUID) -> tuple[ReplayRecord, ...]:
        """The replays of an event, in order."""
        return tuple(
            await self._session.fetch("record_replays", ReplayRecord, {"event_id": event_id})
        )

    async def findings(self, event_id: UUID, *, links_trace: bool = False) -> tuple[Finding, ...]:
        """Where the messages of an event are: of each that was not delivered, and then the others.

        Empty if the database knows neither the event nor a message of it. With `links_trace`,
        the caller shows where its trace is, so that no command finds it.
        """
        record = await self.event(event_id)
        return await read_findings(
            self._session,
            event_id,
            stored=None if record is None else StoredEvent(record.subject[0], record.saved_date),
            links_trace=links_trace,
        )

    async def forgotten_at(self) -> datetime | None:
        """When `forget` last deleted events; None: in no one of operators' last 10,000 calls."""
        return await last_operation(self._session, "forget")

    async def entity(self, entity_type: str, entity_id: str) -> EntityRecord | None:
        """The current state of an entity, or None if no event has touched it."""
        key = {"entity_type": entity_type, "entity_id": entity_id}
        rows = await self._session.fetch("record_entity", EntityRecord, key)
        return rows[0] if rows else None

    async def history(
        self, entity_type: str, entity_id: str, last: int, *, rows: int = 50
    ) -> tuple[VersionRecord, ...]:
        """Up to `rows` versions of an entity, from version `last` back."""
        entity = {"entity_type": entity_type, "entity_id": entity_id}
        key: Mapping[str, object] = {**entity, "after": last - rows, "last": last}
        return tuple(await self._session.fetch("record_history", VersionRecord, key))


def _newest(
    *, subject_type: str, subject_id: str, seen: int, **rest: Any
) -> tuple[NewestEvent, int]:
    """The event of a row of ``events_newest`` or ``waiting_newest``, and how many were read."""
    return NewestEvent(subject=subject_key(subject_type, subject_id), **rest), seen


def _event(
    *, subject_type: str, subject_id: str, headers: str | None, touches: str, **rest: Any
) -> EventRecord:
    """The event of a row of ``record_event``; no headers or touches if they have another form."""
    return EventRecord(
        subject=(subject_type, subject_id),
        headers=headers_in(headers) or {},
        touches=touches_in(touches) or (),
        **rest,
    )
