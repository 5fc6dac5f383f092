"""Every error of the library, in one place.

Each docstring is a row of one table: what it means; what is in the database;
whether to call again; the HTTP status that `http_status` gives it. When
conflicts or an outage outlast the retries, the driver's own last exception is
raised unchanged, so `except psycopg.errors.SerializationFailure` keeps working.
"""

from uuid import UUID

from .extras import install_command


class OutboxError(Exception):
    """The base of all errors that this library defines."""


class SettingsError(OutboxError, ValueError):
    """A setting or URL breaks a rule. In the database: nothing. Call again: mended."""


class MissingExtra(OutboxError, ImportError):  # noqa: N818 - reads as what happened
    """A package of an extra is not installed; the text names the command that installs it.

    `instead` names what serves as well and is no extra.
    """

    def __init__(self, extra: str, purpose: str, *, instead: str = "") -> None:
        wanted = f"the extra [{extra}]" + (f" or {instead}" if instead else "")
        super().__init__(f"{purpose} needs {wanted}: {install_command(extra)}")
        self.extra = extra


class SchemaError(OutboxError):
    """The tables are missing or differ. Call again: after `dsql-outbox schema apply`."""


class InvalidEvent(OutboxError, ValueError):  # noqa: N818
    """The event is refused. In the database: nothing. Call again: no. HTTP 422.

    `path` points at the culprit as in ``entities[0].entityHeader.entityId``;
    it is empty when the event as a whole is at fault.
    """

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path}: {rule}" if path else rule)
        self.path = path
        self.rule = rule


class EventTooLarge(InvalidEvent):
    """The encoded event is over the limit. In the database: nothing. Call again: no. HTTP 413.

    `size` and `limit` are bytes, of the event or of all copies that would be stored.
    """

    def __init__(self, size: int, limit: int, *, what: str = "event") -> None:
        super().__init__("", f"{what} of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class DuplicateEvent(OutboxError):  # noqa: N818
    """The id was there before this call. In the database: the earlier event. Call again: no.

    HTTP 409. `same_content` tells whether the earlier event is byte for byte
    this one, savedDate aside.
    """

    def __init__(self, event_id: UUID, *, same_content: bool) -> None:
        content = "the same content" if same_content else "different content"
        super().__init__(f"event {event_id} was stored before, with {content}")
        self.event_id = event_id
        self.same_content = same_content


class StaleVersion(OutboxError):  # noqa: N818
    """`expected_version` did not hold. In the database: nothing. Call again: after a reload.

    HTTP 409. `expected` and `actual` are versions of the subject.
    """

    def __init__(self, event_id: UUID, *, expected: int, actual: int) -> None:
        super().__init__(
            f"event {event_id} expects its subject at version {expected}, it is at {actual}"
        )
        self.event_id = event_id
        self.expected = expected
        self.actual = actual


class OutcomeUnknown(OutboxError):  # noqa: N818
    """A connection died at the commit and nothing could tell what became of it.

    In the database: unknown. Call again: yes, with the same event id; it ends
    as a receipt or as `DuplicateEvent`. HTTP 503 with Retry-After. The cause is
    the driver's exception.
    """

    def __init__(self, event_id: UUID) -> None:
        super().__init__(
            f"event {event_id} may or may not be stored: the connection was lost at the commit; "
            "write it again with the same id"
        )
        self.event_id = event_id


class TransactionMisused(OutboxError, RuntimeError):  # noqa: N818
    """`transact` or its transaction was used so that it cannot keep its promise.

    In the database: nothing, but what the function committed itself. Call
    again: with the function mended.
    """


class SinkUnavailable(OutboxError):  # noqa: N818
    """The broker failed, not a message: nothing counts against any message."""
