"""Stored events that are selected for a replay, read page by page."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import msgspec

from dsql_outbox.outbox import SettingsError, parse_subject_key, subject_key
from dsql_outbox.publisher.session import OperatorSession

_ENTITY_PAGE: Final = 1_000
_PAGE: Final = 5_000


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the stored events that match every field that is set.

    `since` (inclusive) and `until` (exclusive) are the times at which events were saved,
    by the database's clock, with a time zone. `event_type` and `topic` match exactly.
    """

    event_type: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements."""
        return {
            "event_type": self.event_type,
            "topic": self.topic,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
        }


class Place(NamedTuple):
    """A version of an entity: the place right after it, in the order of entities and versions."""

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


START: Final = Place("", "", 0)
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


async def entity_pages(
    session: OperatorSession, entity: tuple[str, str], which: EventFilter, after: int
) -> AsyncGenerator[EventPage]:
    """The events that touched an entity, after a version of it, in order of its versions.

    The last is that of the version at the call. Raises `SettingsError` for an entity that
    no event has touched.
    """
    names = {"entity_type": entity[0], "entity_id": entity[1]}
    versions = await session.rows("entity_version", names)
    if not versions:
        raise SettingsError(
            f"no event has touched entity {subject_key(*entity)} of schema {session.schema}"
        )
    parameters = which.parameters() | names | {"last": versions[0][0], "rows": _ENTITY_PAGE}
    seen = _ENTITY_PAGE
    while seen == _ENTITY_PAGE:
        rows = await session.rows("replay_entity_page", parameters | {"after": after})
        seen, reached = rows[0][:2]
        keys = [StoredKey(row[3], str(row[2])) for row in rows if row[3] is not None]
        after = reached or after
        yield EventPage(keys, seen, str(after))


async def all_pages(
    session: OperatorSession, which: EventFilter, after: Place
) -> AsyncGenerator[EventPage]:
    """The events of all subjects after a place, in order of subjects and their versions.

    If the filter has no `until`, the events that were saved before the call.
    """
    parameters = which.parameters() | {"rows": _PAGE}
    seen = _PAGE
    while seen == _PAGE:
        place = {"entity_type": after.entity_type, "entity_id": after.entity_id}
        rows = await session.rows("replay_page", parameters | place | {"after": after.version})
        seen, *reached, until = rows[0][:5]
        keys = [StoredKey(row[8], str(Place(*row[5:8]))) for row in rows if row[8] is not None]
        if seen:
            after = Place(*reached)
        parameters |= {"until": until.isoformat()}
        yield EventPage(keys, seen, None if after == START else str(after))
