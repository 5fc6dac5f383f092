"""The receipt that a caller receives for a stored event."""

from collections.abc import Iterator
from typing import Any, Literal
from uuid import UUID

import msgspec


class JsonStruct(msgspec.Struct, frozen=True, rename="camel"):
    """A struct that can be the answer of a web framework.

    pydantic 2, and so FastAPI, takes it as the type of a response or of a field.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by their JSON names, as values that `json.dumps` accepts."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield the items of `to_dict`: FastAPI encodes an object of an unknown type by `dict`."""
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        """Return the schema of this class. Called by pydantic, so pydantic is installed."""
        from .pydantic_schema import schema_of_struct  # noqa: PLC0415 - pydantic is optional

        return schema_of_struct(cls, handler)


class Touched(JsonStruct, frozen=True, gc=False):
    """One entity of the event, with the version that the event gave it.

    `Receipt.entities` has one of them per entity.

        >>> with Writer(database) as writer:
        ...     (touched,) = writer.write(event).entities
        >>> touched.entity_type, touched.entity_id, touched.version
        ('Car', 'C-1', 1)
    """

    entity_type: str
    """The type, as the event has it."""

    entity_id: str
    """The id, as the event has it."""

    version: int
    """The number of events that have touched the entity, this one included."""


class Receipt(JsonStruct, frozen=True, gc=False):
    """Proof that an event is stored exactly once.

    A write returns it after its commit.

        >>> with Writer(database) as writer:
        ...     receipt = writer.write(event)
        >>> receipt.attempts, receipt.conflicts, receipt.entities[0].version
        (1, 0, 1)
    """

    event_id: UUID
    """The id of the event."""

    status: Literal["committed", "duplicate"]
    """``committed``, or ``duplicate`` if the event was stored before this call and the caller
    chose ``on_duplicate="return"``."""

    attempts: int
    """The number of attempts of this call."""

    conflicts: int
    """The number of these attempts that ended in a conflict."""

    position: int
    """Microseconds since the Unix epoch by the database's clock. Increases strictly per
    subject."""

    entities: tuple[Touched, ...]
    """The entities, in the order of the event. The first one is the subject."""
