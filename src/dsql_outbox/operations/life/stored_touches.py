"""The touches of stored events, as keys of their headers."""

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from dsql_outbox.operations.stored_event import touches_in
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.receipt import Touched


class EventTouch(NamedTuple):
    """One touch of an event; `n` is its place in the event, from 0."""

    event_id: UUID
    n: int
    touched: Touched


def touches_of(event_id: UUID, touches: str) -> list[EventTouch]:
    """The touches in the JSON of an event's row. Raises `OutboxError` for another text."""
    found = touches_in(touches)
    if found is None:
        raise OutboxError(f"the stored touches of event {event_id} are no JSON array")
    return [EventTouch(event_id, n, touched) for n, touched in enumerate(found)]


def header_keys(touches: Iterable[EventTouch]) -> dict[str, str]:
    """The parameters that name the rows of these touches in ``event_headers``."""
    found = list(touches)
    return {
        "types": array_literal(each.touched.entity_type for each in found),
        "ids": array_literal(each.touched.entity_id for each in found),
        "versions": array_literal(each.touched.version for each in found),
        "event_ids": array_literal(each.event_id for each in found),
    }
