"""The event as its producer makes it, and its JSON.

Two JSON forms exist. The current form has ``entities`` beside ``eventHeader``;
each entity has an ``entityHeader`` and, beside it, its attributes. The older
form has ``eventBody.entities`` with ``updatedAttributes``. `Event.to_json` writes the
current form. `parse_event` reads both.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Never, Self
from uuid import UUID, uuid4

import msgspec

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.errors import InvalidEvent

from .json_encoding import Attributes, attributes_of, encode_json

_ORDER: Final = (
    "Event.new takes the type and the entities, and the name by keyword: "
    'Event.new("LoanPaid", [loan], name="Loan Paid")'
)

WireDate = str | int | float | None
"""ISO 8601 text, or milliseconds since the Unix epoch as a number or as text."""

_make_id: ContextVar[Callable[[], UUID]] = ContextVar("dsql_outbox_event_id", default=uuid4)
"""Makes the id of an event that is given none."""


class EventHeader(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The identity of an event. `uuid` is the caller's idempotency key."""

    uuid: UUID
    event_name: str
    event_type: str | None = None
    created_date: WireDate = None
    saved_date: WireDate = None


class EntityHeader(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The identity of one entity of an event. Its dates are those that the sender gave."""

    entity_id: str
    entity_type: str
    created_at: WireDate = None
    updated_at: WireDate = None


class Entity(msgspec.Struct, frozen=True):
    """One entity that an event changes, with its attributes after the change.

    The first entity of an event is its subject.

        >>> Entity("Car", "C-1", {"km": 9}).attributes["km"]
        9
    """

    type: str
    """The type, such as ``Car``."""

    id: str
    """The id, unique within its type."""

    attributes: Attributes = {}
    """A mapping, a pydantic model, a dataclass or a msgspec Struct. It is encoded when the event
    is written; a pydantic model by ``model_dump(mode="json")``."""

    def to_wire(self, at: WireDate, path: str) -> dict[str, Any]:
        """Return the entity in the current JSON form.

        Raises `InvalidEvent` if the attributes cannot be encoded, or if one has the name
        ``entityHeader``.
        """
        attributes = self.attributes
        if not isinstance(attributes, dict):
            attributes = attributes_of(attributes, path)
        if "entityHeader" in attributes:
            raise InvalidEvent(f"{path}.attributes.entityHeader", "is no name for an attribute")
        header = EntityHeader(self.id, self.type, created_at=at, updated_at=at)
        return {"entityHeader": header, "id": self.id, **attributes}


class Event(msgspec.Struct, frozen=True):
    """A business event and the entities that it touches.

    `new` makes one from its parts.

        >>> event = Event.new("CarSold", [Entity("Car", "C-1", {"km": 9})])
        >>> with Writer(database) as writer:
        ...     writer.write(event).status
        'committed'
    """

    header: EventHeader
    """The id, name, type and dates."""

    entities: tuple[Entity, ...]
    """The entities. The first one is the subject."""

    topic: str | None = None
    """The topic of its message, which is no part of its JSON (`JsonEvent`)."""

    headers: Mapping[str, str] = {}
    """Headers of its message, which are no part of its JSON (`JsonEvent`)."""

    def __post_init__(self) -> None:
        """Check the types of the parts that `to_json` reads."""
        _require_parts(self.header, self.entities)

    @classmethod
    def new(  # noqa: PLR0913 - one argument per part of an event
        cls,
        type: str,  # noqa: A002 - the name of the field
        entities: Iterable[Entity],
        *more: Never,
        name: str | None = None,
        id: UUID | None = None,  # noqa: A002 - the name of the field
        created_date: datetime | None = None,
        topic: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a new event. Equal arguments, `id` included, return equal events.

        Without `name` the name is the type. Without `id` the id is random, but in a function
        given to `transact` the n-th event has the same id in each run of the call. With
        `created_date`, every date in the JSON is that date; a date without a time zone is read
        as UTC. Without it, the JSON has no dates, and the tables and the message get the start
        time of the transaction by the database's clock. `topic` and `headers` are those of
        `JsonEvent`.

        Raises `TypeError` for entities or a date of another type, and for a name that is not
        given by keyword.
        """
        if more or isinstance(entities, str):  # (name, type, entities)
            raise TypeError(_ORDER)
        date = None if created_date is None else _iso(created_date)
        name = type if name is None else name
        header = EventHeader(id or _make_id.get()(), name, type, created_date=date, saved_date=date)
        return cls(header, _entities(entities), topic, {} if headers is None else headers)

    @property
    def id(self) -> UUID:
        """The id of the event."""
        return self.header.uuid

    def to_json(self) -> bytes:
        """Return the event as JSON. Raises `InvalidEvent` if JSON cannot represent it."""
        at = self.header.created_date
        entities = [e.to_wire(at, f"entities[{n}]") for n, e in enumerate(self.entities)]
        return encode_json({"eventHeader": self.header, "entities": entities})


class JsonEvent(msgspec.Struct, frozen=True):
    """An event as JSON, with a topic and headers of its own.

    Topic and headers are stored, so a replay has them. They are checked when the event is
    written, and are no part of its content: an event with the same JSON and id is a duplicate.

    Raises `TypeError` if `data` is of another type. An `Event` has both by itself.

        >>> given = JsonEvent(event.to_json(), topic="cars", headers={"tenant": "7"})
        >>> with Writer(database) as writer:
        ...     writer.write(given).event_id == event.id
        True
    """

    data: Mapping[str, Any] | str | bytes
    """The event. A text is stored unchanged."""

    topic: str | None = None
    """The topic, instead of the one by the writer's settings."""

    headers: Mapping[str, str] = {}
    """Attributes of the message beside those that the outbox sets, at most 20. A name is 1 to 20
    of ``a-z 0-9``, as CloudEvents demands, and a value is a text of 1 to 1,024 characters."""

    def __post_init__(self) -> None:
        """Check the type of `data`."""
        _require_json(self.data)


@contextmanager
def event_ids(make_id: Callable[[], UUID]) -> Generator[None]:
    """Let `make_id` make the ids of events in the block, and in tasks that begin there."""
    token = _make_id.set(make_id)
    try:
        yield
    finally:
        _make_id.reset(token)


def _require_json(data: object) -> None:
    if not isinstance(data, (Mapping, str, bytes)):
        remedy = "Event.new(.., topic=.., headers=..) has both by itself"
        raise wrong_type("JsonEvent takes a mapping, or JSON as str or bytes", data, remedy)


def _entities(entities: object) -> tuple[Any, ...]:
    if isinstance(entities, Iterable):
        return tuple(entities)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    remedy = "entities=[Entity(type, id, attributes)]"
    raise wrong_type("Event.new takes a list of entities", entities, remedy)


def _require_parts(header: object, entities: tuple[object, ...]) -> None:
    if not isinstance(header, EventHeader):
        remedy = "Event.new(type, [Entity(type, id, attributes)])"
        raise wrong_type("Event.header must be an EventHeader", header, remedy)
    for n, entity in enumerate(entities):
        if not isinstance(entity, Entity):
            remedy = "Entity(type, id, attributes)"
            raise wrong_type(f"entities[{n}] of an Event must be an Entity", entity, remedy)


def _iso(date: object) -> str:
    if not isinstance(date, datetime):
        remedy = "created_date=datetime.now(UTC)"
        raise wrong_type("Event.new takes created_date as a datetime", date, remedy)
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return aware.isoformat(timespec="milliseconds")
