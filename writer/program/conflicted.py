"""The conflict that a failed step ended in: the entities, and the time lost. No I/O.

The database does not name the entity that conflicted, so every entity of the transaction
counts. A batch is halved after a conflict, so the right entity is soon alone.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from time import time_ns
from typing import Final

from dsql_outbox.outbox import FailureKind, ParsedEvent
from dsql_outbox.writer.attempt.pending import Pending
from dsql_outbox.writer.attempt.steps import Attempt, Failed, Wait, classified
from dsql_outbox.writer.conflicts.sketch import Conflict, EntityKey
from dsql_outbox.writer.transact.runs import Execute

MOST: Final = 16
"""The largest number of entities of one transaction that are counted, chosen at random."""

_NS: Final = 1e-9


def conflict_of(
    step: object, result: Failed, started_ns: int, following: object
) -> Conflict | None:
    """Return the conflict that a step ended in, or None if it ended in another failure.

    `following` is the next step: a wait, another attempt, or None after the last one.
    """
    if not isinstance(step, (Attempt, Execute)) or _is_of_caller(step):
        return None
    if classified(result).kind is not FailureKind.CONFLICT:
        return None
    events, lost = _events(step), _given_up(step, is_last=following is None)
    touched = _touched(events)
    waits = following.seconds if isinstance(following, Wait) else 0.0
    return Conflict(
        touched=_sampled(touched),
        is_sampled=len(touched) > MOST,
        in_transact=isinstance(step, Execute),
        exhausted=1 if lost and isinstance(step, Execute) else len(lost),
        given_up=_touched(lost).keys(),
        lost_seconds=max(0.0, (time_ns() - started_ns) * _NS) + waits,
    )


def _is_of_caller(step: Attempt | Execute) -> bool:
    return isinstance(step, Execute) and step.run.is_callers_error


def _events(step: Attempt | Execute) -> Sequence[ParsedEvent]:
    if isinstance(step, Execute):
        return step.run.events
    return [pending.prepared.event for pending in _sent(step)]


def _given_up(step: Attempt | Execute, *, is_last: bool) -> Collection[ParsedEvent]:
    """Return the events that are not tried again."""
    if isinstance(step, Execute):
        return step.run.events if is_last else ()
    failed = (pending for pending in _sent(step) if isinstance(pending.outcome, Exception))
    return [pending.prepared.event for pending in failed]


def _sent(attempt: Attempt) -> Sequence[Pending]:
    """Return the events of an attempt that did not leave before they were sent."""
    return [pending for pending in attempt.batch if not pending.has_left]


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
