"""The conflict that a failed step ended in: the entities, and the time lost. No I/O.

The database does not name the entity that conflicted, so every entity of the transaction
counts. A batch is halved after a conflict, so the right entity is soon alone.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final

from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.failure import DatabaseFailure, FailureKind
from dsql_outbox.writer.conflicts.sketch import Conflict, EntityKey

MOST: Final = 16
"""The largest number of entities of one transaction that are counted, chosen at random."""


def conflict_of(
    failure: DatabaseFailure,
    events: Sequence[ParsedEvent],
    given_up: Sequence[ParsedEvent],
    *,
    seconds: float,
    in_transact: bool,
) -> Conflict | None:
    """Return the conflict of a transaction of these events, which cost so many seconds.

    `given_up` are those that are not tried again. None: the transaction failed otherwise.
    """
    # Only this kind is about entities. OC001 names none, and a collision is about an event's id.
    if failure.kind is not FailureKind.CONFLICT:
        return None
    touched = _touched(events)
    return Conflict(
        touched=_sampled(touched),
        is_sampled=len(touched) > MOST,
        in_transact=in_transact,
        exhausted=min(1, len(given_up)) if in_transact else len(given_up),
        given_up=_touched(given_up).keys(),
        lost_seconds=max(0.0, seconds),
    )


def _touched(events: Iterable[ParsedEvent]) -> dict[EntityKey, bool]:
    """Return each entity, and whether one of the events touches another one beside it."""
    touched: dict[EntityKey, bool] = {}
    for event in events:
        for touch in event.touches:
            key = touch.entity_type, touch.entity_id
            touched[key] = touched.get(key, False) or len(event.touches) > 1
    return touched


def _sampled(touched: dict[EntityKey, bool]) -> dict[EntityKey, bool]:
    if len(touched) <= MOST:
        return touched
    return {key: touched[key] for key in random.sample(list(touched), MOST)}
