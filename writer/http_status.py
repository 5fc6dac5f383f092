"""The HTTP answer for each exception of a write."""

from typing import NamedTuple

from dsql_outbox.outbox.errors import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    OutcomeUnknown,
    StaleVersion,
    WriterClosed,
)
from dsql_outbox.outbox.failure import OUTAGES, RACES, FailureKind, kind_of


class HttpAnswer(NamedTuple):
    """A status code, and the seconds for a Retry-After header if a retry makes sense."""

    status: int
    retry_after: int | None = None


def http_status(error: Exception, *, exhausted: int = 500) -> HttpAnswer:
    """Return the HTTP answer for an exception of `write`, or of a session of the caller.

    The error may be one of psycopg, asyncpg or psycopg2, also in a wrapper of SQLAlchemy or Django.

    - 413 for an event that is too large, 422 for any other event that is not valid.
    - 409 for a duplicate or a stale version.
    - 503 with Retry-After if the outcome is unknown: the client sends the same event again,
      with the same id. That is `OutcomeUnknown`, and the `TimeoutError` of an
      ``asyncio.timeout`` around the call, which may have been committed.
    - 503 with Retry-After if the database cannot be reached or accepts no writes, as in a
      failover, if a pool has no free connection, or if the writer is closed.
    - `exhausted` (500 or 503, as you choose) with Retry-After if conflicts outlasted the
      retries.
    - 500 for everything else, such as a unique violation of a table of your own, or a login
      that the database refuses: a client cannot wait for the end of these.

    An example:

        >>> http_status(InvalidEvent("entities", "is empty")).status
        422
    """
    match error:
        case EventTooLarge():
            return HttpAnswer(413)
        case InvalidEvent():
            return HttpAnswer(422)
        case DuplicateEvent() | StaleVersion():
            return HttpAnswer(409)
        case OutcomeUnknown() | TimeoutError() | WriterClosed():
            return HttpAnswer(503, retry_after=1)
        case _:
            return _of_driver(error, exhausted)


def _of_driver(error: Exception, exhausted: int) -> HttpAnswer:
    kind = kind_of(error)
    if kind in RACES:
        return HttpAnswer(exhausted, retry_after=1)
    passes = kind in OUTAGES or kind is FailureKind.READ_ONLY
    return HttpAnswer(503, retry_after=5) if passes else HttpAnswer(500)
