"""The reads of `Records`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import Touched, array_literal
from dsql_outbox.publisher.session import Operator

from .sightings import Death, Predecessor, Trouble, WaitingRecord, Whereabouts

_STEPS: Final = 1_000

_decode_touches: Final = msgspec.json.Decoder(tuple[Touched, ...]).decode
_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode


class EventRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A stored event, without its payload.

    `subject` is the type and the id of its subject. `position` is in microseconds, and
    `payload_bytes` the size of the payload. `touches` are the entities with the versions
    that the event gave them.
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


class ReplayRecord(msgspec.Struct, frozen=True, rename="camel"):
    """A replay of an event, from 1 on; `replayed_by` is a database role."""

    number: int
    reason: str
    replayed_by: str
    replayed_at: datetime


class Records(Operator):
    """Reads stored events and entities. Every read is a look-up by key.

    The constructor does no I/O. Use ``async with`` or call `close`. All methods raise
    `SchemaError` if the tables are missing, and the driver's errors.
    """

    async def event(self, event_id: UUID) -> EventRecord | None:
        """The stored event, or None."""
        rows = await self._session.rows("record_event", {"event_id": event_id})
        return _event(event_id, rows[0]) if rows else None

    async def payload(self, event_id: UUID) -> str | None:
        """The exact text of the stored event, or None."""
        rows = await self._session.rows("record_payload", {"event_id": event_id})
        return rows[0][0] if rows else None

    async def replays(self, event_id: UUID) -> tuple[ReplayRecord, ...]:
        """The replays of an event, in order."""
        rows = await self._session.rows("record_replays", {"event_id": event_id})
        return tuple(ReplayRecord(*row) for row in rows)

    async def whereabouts(self, event_ids: Sequence[UUID]) -> Mapping[UUID, Whereabouts]:
        """Where each of the events is now; at most some hundreds of them."""
        ids = {"event_ids": array_literal(event_ids)}
        waiting: dict[UUID, list[WaitingRecord]] = defaultdict(list)
        deaths: dict[UUID, list[Death]] = defaultdict(list)
        for row in await self._session.rows("record_waiting", ids):
            waiting[row[0]].append(_waiting(row))
        for row in await self._session.rows("record_letters", ids):
            deaths[row[0]].append(_death(row))
        return {each: Whereabouts(tuple(waiting[each]), tuple(deaths[each])) for each in event_ids}

    async def predecessor(self, message: WaitingRecord) -> Predecessor | None:
        """The message for which a waiting message waits; None if it waits for no other.

        This looks at most 1,000 messages back.
        """
        key = {
            "shard": message.shard,
            "position": message.position,
            "event_id": message.event_id,
        }
        rows = await self._session.rows("record_first", key, steps=_STEPS)
        return _predecessor(rows[0]) if rows else None

    async def entity(self, entity_type: str, entity_id: str) -> EntityRecord | None:
        """The current state of an entity, or None if no event has touched it."""
        key = {"entity_type": entity_type, "entity_id": entity_id}
        rows = await self._session.rows("record_entity", key)
        return _entity(entity_type, entity_id, rows[0]) if rows else None

    async def history(
        self, entity_type: str, entity_id: str, last: int, *, rows: int = 50
    ) -> tuple[VersionRecord, ...]:
        """Up to `rows` versions of an entity, from version `last` back."""
        entity = {"entity_type": entity_type, "entity_id": entity_id}
        key: Mapping[str, object] = {**entity, "after": last - rows, "last": last}
        found = await self._session.rows("record_history", key)
        return tuple(map(_version, found))


def _event(event_id: UUID, row: Sequence[Any]) -> EventRecord:
    name, type_, subject_type, subject_id, version, topic, shard, position = row[:8]
    created, saved, size, headers, touches = row[8:]
    return EventRecord(
        id=event_id,
        name=name,
        type=type_,
        subject=(subject_type, subject_id),
        subject_version=version,
        topic=topic,
        shard=shard,
        position=position,
        created_date=created,
        saved_date=saved,
        payload_bytes=size,
        headers=_parsed_headers(headers),
        touches=_parsed_touches(touches),
    )


def _parsed_headers(text: str | None) -> Mapping[str, str]:
    """The headers; none if a writer's role stored another form."""
    try:
        return _decode_headers(text or "{}")
    except msgspec.MsgspecError:
        return {}


def _parsed_touches(text: str) -> tuple[Touched, ...]:
    """The touched entities; none if a writer's role stored another form."""
    try:
        return _decode_touches(text)
    except msgspec.MsgspecError:
        return ()


def _waiting(row: Sequence[Any]) -> WaitingRecord:
    event_id, replay, shard, position, topic, attempts, error, retry_at, behind, paused = row
    trouble = _trouble(topic, attempts, error, retry_at, paused)
    return WaitingRecord(
        event_id=event_id,
        replay=replay,
        shard=shard,
        position=position,
        behind=behind,
        trouble=trouble,
    )


def _trouble(topic: str, attempts: int | None, *rest: Any) -> Trouble:
    error, retry_at, paused = rest
    return Trouble(
        topic=topic, attempts=attempts or 0, error=error, retry_at=retry_at, paused=paused
    )


def _predecessor(row: Sequence[Any]) -> Predecessor:
    step, event_id, *rest = row
    return Predecessor(
        event_id=event_id, messages=step, more=step == _STEPS, trouble=_trouble(*rest)
    )


def _death(row: Sequence[Any]) -> Death:
    event_id, died_at, error, attempts, replay = row
    return Death(event_id=event_id, died_at=died_at, error=error, attempts=attempts, replay=replay)


def _entity(entity_type: str, entity_id: str, row: Sequence[Any]) -> EntityRecord:
    version, shard, state, event_id, created_at, updated_at = row
    return EntityRecord(
        entity_type=entity_type,
        entity_id=entity_id,
        version=version,
        shard=shard,
        state=state,
        event_id=event_id,
        created_at=created_at,
        updated_at=updated_at,
    )


def _version(row: Sequence[Any]) -> VersionRecord:
    version, event_id, name, type_, saved_date, topic, is_subject = row
    return VersionRecord(
        version=version,
        event_id=event_id,
        name=name,
        type=type_,
        saved_date=saved_date,
        topic=topic,
        is_subject=is_subject,
    )
