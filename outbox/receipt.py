"""What a caller gets for a stored event."""

from typing import Literal
from uuid import UUID

import msgspec


class Touched(msgspec.Struct, frozen=True, rename="camel"):
    """One entity of the event, at the version that the event gave it."""

    entity_type: str
    entity_id: str
    version: int


class Receipt(msgspec.Struct, frozen=True, rename="camel"):
    """Proof that an event is stored, exactly once.

    `position` is microseconds on the database's clock, strictly rising per
    subject. `attempts` and `conflicts` count the runs of this call. `status` is
    ``committed``, or ``duplicate`` when the id was there before this call and
    the caller asked for that to be no error.
    """

    event_id: UUID
    status: Literal["committed", "duplicate"]
    attempts: int
    conflicts: int
    position: int
    entities: tuple[Touched, ...]
