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


class Touched(JsonStruct, frozen=True):
    """One entity of the event, with the version that the event gave it.

    The version is the number of events that have touched the entity.

        >>> with Writer(database) as writer:
        ...     (touched,) = writer.write(event).entities
        >>> touched.entity_type, touched.entity_id, touched.version
        ('Car', 'C-1', 1)
    """

    entity_type: str
    entity_id: str
    version: int


class Receipt(JsonStruct, frozen=True):
    """Proof that an event is stored exactly once.

    `position` is in microseconds since the Unix epoch by the database's clock, and
    increases strictly per subject. `attempts` counts the attempts of this call,
    `conflicts` those that ended in a conflict. `status` is ``committed``. It is
    ``duplicate`` if the event was stored before this call and the caller chose
    ``on_duplicate="return"``. `entities` are in the order of the event.

        >>> with Writer(database) as writer:
        ...     receipt = writer.write(event)
        >>> receipt.attempts, receipt.conflicts, receipt.entities[0].version
        (1, 0, 1)
    """

    event_id: UUID
    status: Literal["committed", "duplicate"]
    attempts: int
    conflicts: int
    position: int
    entities: tuple[Touched, ...]
