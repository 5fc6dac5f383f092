"""What an HTTP layer answers for each way a write can end."""

from typing import NamedTuple

from dsql_outbox.outbox import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    OutcomeUnknown,
    StaleVersion,
)
from dsql_outbox.writer.attempt.classification import FailureKind, classify


class HttpAnswer(NamedTuple):
    """A status code, and seconds for the Retry-After header if trying again makes sense."""

    status: int
    retry_after: int | None = None


def http_status(error: Exception, *, exhausted: int = 500) -> HttpAnswer:
    """The HTTP answer for an exception of `write`.

    422 and 413 for a refused event, 409 for a duplicate or a stale version, 503 when the outcome is
    unknown or the database cannot be reached, `exhausted` (500, or 503 by
    choice) with Retry-After when conflicts outlasted the retries, else 500.
    """
    match error:
        case EventTooLarge():
            return HttpAnswer(413)
        case InvalidEvent():
            return HttpAnswer(422)
        case DuplicateEvent() | StaleVersion():
            return HttpAnswer(409)
        case OutcomeUnknown():
            return HttpAnswer(503, retry_after=1)
        case _:
            return _of_driver(error, exhausted)


def _of_driver(error: Exception, exhausted: int) -> HttpAnswer:
    match classify(error, sent=False).kind:
        case FailureKind.CONFLICT | FailureKind.COLLISION:
            return HttpAnswer(exhausted, retry_after=1)
        case FailureKind.OUTAGE | FailureKind.IN_DOUBT:
            return HttpAnswer(503, retry_after=5)
        case FailureKind.FATAL:
            return HttpAnswer(500)
