"""Rare points of the writer, to which a campaign must come."""

from typing import Final

from benchmarks.points import Point

from dsql_outbox.outbox.failure import FailureKind
from dsql_outbox.writer.attempt.event_write import EventWrite
from dsql_outbox.writer.attempt.pending import Pending

POINTS: Final = (
    Point(
        "event found whose COMMIT had no answer",
        Pending,
        "settle_resolved",
        lambda pending, *_: pending.in_doubt,
    ),
    Point(
        "attempt refused after one in doubt",
        Pending,
        "record_failure",
        lambda pending, failure, *_: pending.in_doubt and failure.kind is not FailureKind.IN_DOUBT,
    ),
    Point(
        "call given up in doubt",
        Pending,
        "give_up",
        lambda pending, _: pending.in_doubt,
    ),
    Point(
        "deadline passed while the event was sent",
        Pending,
        "expire",
        lambda pending: pending.is_open and pending.is_sent,
    ),
    Point(
        "deadline passed before the event was sent",
        Pending,
        "expire",
        lambda pending: pending.is_open and not pending.is_sent,
    ),
    Point(
        "stale version in doubt",
        Pending,
        "settle_stale",
        lambda pending, *_: pending.in_doubt,
    ),
    Point(
        "stale version behind a touch of its batch",
        EventWrite,
        "_settle_stale",
        lambda _, batch, pending, *__: any(
            each.touches_subject_of(pending) for each in batch[: batch.index(pending)]
        ),
    ),
    Point(
        "batch searched for the event that fails it",
        EventWrite,
        "_sift",
        lambda _: True,
    ),
)
