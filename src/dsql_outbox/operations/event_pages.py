"""Stored events that are selected for a replay, read page by page."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Self
from uuid import UUID

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import parse_subject_key, subject_key
from dsql_outbox.schema.session import Session

from .selection import Selection

_ENTITY_PAGE: Final = 1_000
_PAGE: Final = 5_000


class EntityVersion(NamedTuple):
    """A version of an entity. As a place, it is the one after it, by entities and versions."""

    entity_type: str
    entity_id: str
    version: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``TYPE/ID@VERSION``. Raises `SettingsError` for any other text."""
        key, _, version = text.rpartition("@")
        if not key or not version.isdecimal():
            raise SettingsError(f"{text!r} is no TYPE/ID@VERSION, as in Loan/LOAN-7@12")
        return cls(*parse_subject_key(key), int(version))

    def __str__(self) -> str:
        return f"{subject_key(self.entity_type, self.entity_id)}@{self.version}"


START: Final = EntityVersion("", "", 0)
"""The place before every event."""


class StoredKey(NamedTuple):
    """A stored event; `place` is where a replay continues after it."""

    event_id: UUID
    place: str | None = None


class EventPage(NamedTuple):
    """One page: the events in it that match, and the place after it. It read `read` rows."""

    keys: Sequence[StoredKey]
    read: int
    place: str | None = None


class _EntityRow(NamedTuple):
    """A row of ``replay_entity_page``: the last two columns are NULL if no event matches."""

    seen: int
    reached: int | None
    entity_version: int
    event_id: UUID | None


class _TouchRow(NamedTuple):
    """A row of ``replay_page``: the last four columns are NULL if no event matches."""

    seen: int
    reached_type: str
    reached_id: str
    reached_version: int
    until: datetime
    entity_type: str
    entity_id: str
    entity_version: int
    event_id: UUID | None


async def entity_pages(
    session: Session, entity: tuple[str, str], which: Selection, after: int
) -> AsyncGenerator[EventPage]:
    """The events that touched an entity, after a version of it, in order of its versions.

    The last is that of the version at the call. Raises `SettingsError` for an entity that
    no event has touched.
    """
    names = {"entity_type": entity[0], "entity_id": entity[1]}
    versions = await session.fetch_rows("entity_version", names)
    if not versions:
        raise SettingsError(
            f"no event has touched entity {subject_key(*entity)} of schema {session.schema}"
        )
    parameters = which.parameters() | names | {"last": versions[0][0], "rows": _ENTITY_PAGE}
    seen = _ENTITY_PAGE
    while seen == _ENTITY_PAGE:
        rows = await session.fetch("replay_entity_page", _EntityRow, parameters | {"after": after})
        seen = rows[0].seen
        after = rows[0].reached or after
        keys = [
            StoredKey(row.event_id, str(row.entity_version))
            for row in rows
            if row.event_id is not None
        ]
        yield EventPage(keys, seen, str(after))


async def all_pages(
    session: Session, which: Selection, after: EntityVersion
) -> AsyncGenerator[EventPage]:
    """The events of all subjects after a place, in order of subjects and their versions.

    If the filter has no `until`, the events that were saved before the call.
    """
    parameters = which.parameters() | {"rows": _PAGE}
    seen = _PAGE
    while seen == _PAGE:
        place = {"entity_type": after.entity_type, "entity_id": after.entity_id}
        rows = await session.fetch(
            "replay_page", _TouchRow, parameters | place | {"after": after.version}
        )
        end = rows[0]
        seen = end.seen
        if seen:
            after = EntityVersion(end.reached_type, end.reached_id, end.reached_version)
        keys = [
            StoredKey(
                row.event_id, str(EntityVersion(row.entity_type, row.entity_id, row.entity_version))
            )
            for row in rows
            if row.event_id is not None
        ]
        parameters |= {"until": end.until.isoformat()}
        yield EventPage(keys, seen, None if after == START else str(after))
