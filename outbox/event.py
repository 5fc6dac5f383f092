"""The event as its producer makes it: the wire form, as Structs.

Two wire forms exist. The current one has ``entities`` beside ``eventHeader``,
each with an ``entityHeader`` and its attributes next to it; the older one has
``eventBody.entities`` with ``updatedAttributes``. We write the first and read
both (`parse_event`).
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID, uuid4

import msgspec

from .errors import InvalidEvent

WireDate = str | int | float | None
"""ISO 8601 text, or milliseconds since the Unix epoch as number or text."""


class EventHeader(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Who the event is: its id is the caller's idempotency key."""

    uuid: UUID
    event_name: str
    event_type: str | None = None
    created_date: WireDate = None
    saved_date: WireDate = None


class EntityHeader(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Which entity is touched; the dates are the sender's."""

    entity_id: str
    entity_type: str
    created_at: WireDate = None
    updated_at: WireDate = None


class Entity(msgspec.Struct, frozen=True):
    """One entity that an event changes, with its attributes as they are now."""

    type: str
    id: str
    attributes: Mapping[str, Any] = {}

    def to_wire(self, at: WireDate, path: str) -> dict[str, Any]:
        """The entity as JSON has it; raises `InvalidEvent` if an attribute is in the way."""
        if "entityHeader" in self.attributes:
            raise InvalidEvent(f"{path}.attributes.entityHeader", "is no name for an attribute")
        header = EntityHeader(self.id, self.type, created_at=at, updated_at=at)
        return {"entityHeader": header, "id": self.id, **self.attributes}


class Event(msgspec.Struct, frozen=True):
    """A business event and the entities that it touches, first the subject."""

    header: EventHeader
    entities: tuple[Entity, ...]

    @classmethod
    def new(
        cls,
        name: str,
        type: str,  # noqa: A002 - the field's own word
        entities: Iterable[Entity],
        *,
        id: UUID | None = None,  # noqa: A002 - the field's own word
        created_date: datetime | None = None,
    ) -> Self:
        """Make an event; the same arguments, `id` among them, make the same event.

        Without `id` the id is random. Without `created_date` the event's own text
        has no dates, and the tables and the message get the database's date of the
        transaction. With it, all dates of the text are this one; a date
        without a time zone is taken as UTC.
        """
        date = None if created_date is None else _iso(created_date)
        header = EventHeader(id or uuid4(), name, type, created_date=date, saved_date=date)
        return cls(header, tuple(entities))

    @property
    def id(self) -> UUID:
        """The event's id."""
        return self.header.uuid

    def to_json(self) -> bytes:
        """The event as it goes over the wire; raises `InvalidEvent` if it can't be encoded."""
        at = self.header.created_date
        entities = [e.to_wire(at, f"entities[{n}]") for n, e in enumerate(self.entities)]
        return encode_json({"eventHeader": self.header, "entities": entities})


def encode_json(value: Any) -> bytes:
    """`value` as JSON; raises `InvalidEvent` for what JSON can't hold.

    NaN and the infinities become null.
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # its text quotes the value
        raise InvalidEvent("", "cannot be encoded as JSON: a text is not Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent("", f"cannot be encoded as JSON: {error}") from None


def _iso(date: datetime) -> str:
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return aware.isoformat(timespec="milliseconds")
