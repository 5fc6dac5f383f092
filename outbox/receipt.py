"""The receipt that a caller receives for a stored event."""

from typing import Literal
from uuid import UUID

from .json_struct import JsonStruct


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
