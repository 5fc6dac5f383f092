"""The exceptions for users, but for those of the map and of a sink, which stand beside these.

Each docstring states what the exception means, what the database holds, whether
to call again, and the HTTP status that `http_status` returns for it.

If conflicts or an outage last longer than the retries, the last exception of
the driver is raised unchanged. So `except psycopg.errors.SerializationFailure`
keeps working.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

_WORD: Final = re.compile("(?<=[a-z])(?=[A-Z])")
"""The places between the words of a class's name."""


class OutboxError(Exception):
    """The base class of all exceptions that this library defines.

    All of them can be copied and pickled, with their text and their attributes.

        >>> try:
        ...     Database("mysql://host/shop")
        ... except OutboxError as error:
        ...     print(error.to_dict()["title"])
        Settings error
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the members of problem details (RFC 9457), as values that `json.dumps` accepts.

        They are ``type``, ``title``, ``detail``, and the attributes of the error, such as
        ``eventId``. No part of an event is in them, except for its id.
        """
        kind = type(self).__name__
        members = {
            "type": f"urn:dsql-outbox:{kind}",
            "title": _WORD.sub(" ", kind).capitalize(),
            "detail": str(self),
        }
        attributes = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return members | {_camel(k): _plain(v) for k, v in attributes.items()}

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """Return the schema of this class. Called by pydantic, so pydantic is installed."""
        from .pydantic_schema import schema_of_error  # noqa: PLC0415 - pydantic is optional

        return schema_of_error(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the text: pickle would call the constructor with the text alone."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


def _rebuild(
    kind: type[OutboxError], texts: tuple[Any, ...], attributes: Mapping[str, Any]
) -> OutboxError:
    error = kind.__new__(kind)
    super(OutboxError, error).__init__(*texts)  # Python's own class, such as ImportError
    error.__dict__.update(attributes)
    return error


class SettingsError(OutboxError, ValueError):
    """A setting or URL is not valid.

    In the database: nothing. Call again: with a valid one.

        >>> Database("mysql://host/shop")
        Traceback (most recent call last):
        dsql_outbox.outbox.errors.SettingsError: ...
    """


class MissingExtra(OutboxError, ImportError):
    """A package of an extra is not installed. The text names the command that installs it.

    `extra` is the name of the extra. The argument `instead` names an alternative that is
    not an extra.

        >>> try:
        ...     sink = open_sink("nats://127.0.0.1")
        ... except MissingExtra as error:
        ...     print(error.extra)
    """

    def __init__(self, extra: str, purpose: str, *, instead: str = "") -> None:
        wanted = f"the extra [{extra}]" + (f" or {instead}" if instead else "")
        super().__init__(f"{purpose} needs {wanted}: pip install 'dsql-outbox[{extra}]'")
        self.extra = extra


class SchemaError(OutboxError):
    """The tables are missing, differ from those that this version needs, or belong to a stranger.

    In the database: nothing. Call again: after `dsql-outbox schema apply`.

        >>> with Writer(elsewhere) as writer:  # a database without the tables
        ...     writer.write(event)
        Traceback (most recent call last):
        dsql_outbox.outbox.errors.SchemaError: ...
    """


class MissingRight(OutboxError):
    """The database role lacks a right on the schema, or on a table or view of the outbox.

    In the database: nothing. Call again: after the owner of the tables has run `command`, which
    the text names. HTTP 500. The `__cause__` is the driver's exception.

        >>> refused = 'permission denied for table outbox'
        >>> error = MissingRight(refused, "dsql-outbox schema grant --writer shop")
        >>> error.command
        'dsql-outbox schema grant --writer shop'
    """

    def __init__(self, refused: str, command: str) -> None:
        super().__init__(f"{refused}: let the owner of the tables run `{command}`")
        self.command = command


class InvalidEvent(OutboxError, ValueError):
    """The event is not valid. In the database: nothing. Call again: no. HTTP 422.

    `path` names the invalid part, such as ``entities[0].entityHeader.entityId``.
    It is empty if the event as a whole is not valid. `rule` says which rule is broken.

        >>> try:
        ...     Writer(database).write("{}")
        ... except InvalidEvent as error:
        ...     print(error.path)
        eventHeader
    """

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path}: {rule}" if path else rule)
        self.path = path
        self.rule = rule


class EventTooLarge(InvalidEvent):
    """The encoded event exceeds a limit. In the database: nothing. Call again: no. HTTP 413.

    `size` and `limit` are in bytes. They count the event, all copies of it that would be
    stored, or the message to the database, whichever exceeds its limit.

        >>> large = Event.new("CarSold", [Entity("Car", "C-1", {"text": "x" * 2**21})])
        >>> try:
        ...     Writer(database).write(large)
        ... except EventTooLarge as error:
        ...     print(error.limit)
        1048576
    """

    def __init__(self, size: int, limit: int, *, what: str = "event") -> None:
        super().__init__("", f"{what} of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class DuplicateEvent(OutboxError):
    """An event with this id was stored before. In the database: that event. Call again: no.

    HTTP 409. `same_content` is True if the stored event is equal to this one in all but
    ``savedDate``.

        >>> with Writer(database) as writer:
        ...     receipt = writer.write(event)
        ...     try:
        ...         writer.write(event)
        ...     except DuplicateEvent as error:
        ...         print(error.same_content)
        ...     writer.write(event, on_duplicate="return").status
        True
        'duplicate'
    """

    def __init__(self, event_id: UUID, *, same_content: bool) -> None:
        content = "the same content" if same_content else "different content"
        super().__init__(f"event {event_id} was stored before, with {content}")
        self.event_id = event_id
        self.same_content = same_content


class StaleVersion(OutboxError):
    """The subject is not at `expected_version`. In the database: nothing.

    Call again: after a reload of the subject. HTTP 409. `expected` and `actual` are
    versions of the subject.

        >>> with Writer(database) as writer:
        ...     try:
        ...         writer.write(event, expected_version=4)
        ...     except StaleVersion as error:
        ...         print(error.expected, error.actual)
        4 0
    """

    def __init__(self, event_id: UUID, *, expected: int, actual: int) -> None:
        super().__init__(
            f"event {event_id} expects its subject at version {expected}, it is at {actual}"
        )
        self.event_id = event_id
        self.expected = expected
        self.actual = actual


class OutcomeUnknown(OutboxError):
    """The connection was lost at the commit, and no later look-up could tell the outcome.

    In the database: unknown. Call again: yes, with the same event id. That call
    returns a receipt or raises `DuplicateEvent`. HTTP 503 with Retry-After. The
    `__cause__` is the driver's exception.

    A `transact` without an event has no such id: `event_id` is that of the call, as in its
    spans. Look for its rows before you call again.

        >>> with Writer(database) as writer:
        ...     try:
        ...         receipt = writer.write(event)
        ...     except OutcomeUnknown:
        ...         receipt = writer.write(event, on_duplicate="return")
        >>> receipt.status
        'committed'
    """

    def __init__(self, event_id: UUID, *, has_event: bool = True) -> None:
        # A repeated `transact` is refused by the id of its first event only. Without one, to call
        # again could do its work twice.
        super().__init__(
            f"event {event_id} may or may not be stored: the connection was lost at the commit; "
            "write it again with the same id"
            if has_event
            else f"call {event_id} may or may not be committed: the connection was lost at the "
            "commit, and no event proves it; look for its rows before you call again"
        )
        self.event_id = event_id


class WriterClosed(OutboxError, RuntimeError):
    """The writer was closed before the call. In the database: nothing.

    Call again: on another writer. HTTP 503, since a process that closes its writer stops.

        >>> writer = Writer(database)
        >>> writer.close()
        >>> writer.write(event)
        Traceback (most recent call last):
        dsql_outbox.outbox.errors.WriterClosed: ...
    """

    def __init__(self) -> None:
        super().__init__("the writer is closed, so nothing was sent: make another Writer")


class TransactionMisused(OutboxError, RuntimeError):
    """`transact`, its transaction or `append_to` was used in a way that it cannot make atomic.

    In the database: nothing, except what the function itself committed. Call
    again: after the function is corrected.

        >>> with Writer(database) as writer:
        ...     writer.transact(lambda transaction: transaction.connection.execute("COMMIT"))
        Traceback (most recent call last):
        dsql_outbox.outbox.errors.TransactionMisused: ...
    """


class SinkUnavailable(OutboxError):
    """The broker failed. A sink raises this.

    The failure does not count as an attempt of any message.

        >>> class Broken:  # a sink
        ...     system = "broken"
        ...
        ...     async def publish(self, messages, answer) -> None:
        ...         raise SinkUnavailable("the broker closed the connection")
    """


class UnreadableMessage(OutboxError, ValueError):
    """A received message lacks what every message of a publisher carries, or is not JSON.

    In the database: nothing. Call again: no. `part` names what is missing or not valid,
    such as ``position``. It is ``JSON`` if `Received.json` cannot decode the payload.

        >>> from dsql_outbox.inbox import from_sqs
        >>> try:
        ...     from_sqs({"body": "a message of another program"})
        ... except UnreadableMessage as error:
        ...     print(error.part)
        cloudevent
    """

    def __init__(self, part: str, rule: str) -> None:
        super().__init__(f"the received message has no valid {part}: {rule}")
        self.part = part


class MessageGap(OutboxError):
    """A message of a subject came before one that precedes it.

    In the database: nothing of this call. Call again: when the broker has delivered the
    messages before it, or with ``on_gap="run"``. The latter is right for a consumer that does not
    get all messages of a subject, such as behind a publisher whose map skips some. `subject` is
    the subject, `expected` the position that the message names as its predecessor, and `actual`
    the highest position that was handled, both in microseconds.

        >>> error = MessageGap("Car/C-1", expected=3, actual=1)
        >>> error.subject, error.expected, error.actual
        ('Car/C-1', 3, 1)
    """

    def __init__(self, subject: str, *, expected: int, actual: int) -> None:
        super().__init__(
            f"a message of {subject} follows position {expected}, but the last one handled has "
            f"position {actual}: leave it to the broker to deliver it again, or call once with "
            'on_gap="run", as behind a publisher whose map skips messages'
        )
        self.subject = subject
        self.expected = expected
        self.actual = actual


class MessageSetAside(OutboxError):
    """A message of a batch waits for an earlier one of its subject, which was not handled.

    In the database: nothing of this message; other messages of the batch may be handled. Call
    again: with both messages, in their order. `subject` is the subject. The cause is the error of
    the earlier message.

        >>> str(MessageSetAside("Car/C-1"))
        'an earlier message of Car/C-1 was not handled: handle both again, in their order'
    """

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"an earlier message of {subject} was not handled: handle both again, in their order"
        )
        self.subject = subject


class JobRefused(OutboxError, RuntimeError):
    """A job that changes stored events cannot run now, as another one or a target does.

    In the database: what this job had committed before. Call again: later.

        >>> str(JobRefused("target lake is filling"))
        'target lake is filling: try again later'
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: try again later")
        self.reason = reason
