"""How a message is remembered: one statement in an open transaction, which tells its order. No I/O.

`once` sends it in a transaction that the inbox commits, `remember` in one of the caller. Several
messages are remembered by two statements: one for their ids, and one that moves the subjects of
those that are new.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid4

import msgspec

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import NumberedQuery, Row, numbered
from dsql_outbox.outbox.failure import driver_error, schema_error
from dsql_outbox.outbox.sessions.caller_session import CallerSession, Joining
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.outbox.unit_of_work.run_transaction import RunTransaction
from dsql_outbox.schema.missing_rights import missing_right
from dsql_outbox.schema.named_statements import guards, read_sql, statement

from .received import MAX_ID, Received, is_id

Remembered = Received | UUID | str
"""A message, or the id by which it is remembered."""

Statement = tuple[NumberedQuery, Mapping[str, str]]

Order = Literal["first", "next", "gap", "late", "replay", "new"]
"""How a new message relates to those of its subject that this consumer has handled.

``first``: none was handled, and the message is not the subject's first. ``next``: its
predecessor is the last one that was handled. ``gap``: messages between were not handled.
``late``: a later one was handled. ``replay``: sent again by an operator, outside the order.
``new``: it is remembered by an id alone, which has no place in a subject.
"""

REMEMBER: Final = Joining(
    "Inbox", "remember", "message", "remembered", read_sql("statements", "remember_failed")
)

ONCE: Final = msgspec.structs.replace(REMEMBER, method="once")

Position = tuple[Order, int]
"""The order of a new message, and the last position of its subject before it, or 0."""

_NO_SOURCE: Final = ""
"""The source of an id that is given as such: whoever gives it says which outbox it is of."""

_APPLY: Final = (
    "`dsql-outbox schema apply --inbox`, or without `--inbox` if the service also stores events"
)


class Key(NamedTuple):
    """The key by which a consumer remembers a message."""

    source: str
    dedupe_id: str


class Subject(NamedTuple):
    """The subject of a message that has a place among the others of it."""

    source: str
    type: str
    id: str


class Statements:
    """The statements of one consumer's inbox."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self.consumer = consumer
        self.guards = guards(database.schema, "inbox_guard")
        names = ("remember", "follow", "remember_many", "follow_many", "find", "page", "forget")
        (
            self._remember,
            self._follow,
            self._remember_many,
            self._follow_many,
            self._find,
            self.page,
            self.forget,
        ) = (
            numbered(name, statement(name, database.schema))
            for name in (f"inbox_{each}" for each in names)
        )

    def remembering(self, message: Remembered, key: Key, run_id: str) -> Statement:
        """Return the statement that remembers a message. `_position_of` reads the answer."""
        own = {"consumer": self.consumer, "run_id": run_id}
        own |= {"source": key.source, "dedupe_id": key.dedupe_id}
        placed = _placed(message)
        if placed is None:
            return self._remember, own
        subject = {
            "subject_type": placed.subject_type,
            "subject_id": placed.subject_id,
            "position": str(placed.position),
        }
        return self._follow, {**own, **subject}

    def remembering_all(self, keys: Collection[Key], run_id: str) -> Statement:
        """Return the statement that remembers messages. It answers with the keys that are new.

        The keys are sorted, so that two batches do not wait for each other.
        """
        return self._remember_many, {"run_id": run_id, **self.keyed(sorted(keys))}

    def following(self, messages: Mapping[Key, Remembered]) -> Statement | None:
        """Return the statement that moves the subjects of new messages, if one has a subject.

        `_positions_of` reads the answer.
        """
        ends: dict[Subject, int] = {}
        for message in messages.values():
            if (subject := subject_of(message)) is not None:
                ends[subject] = max(ends.get(subject, 0), _place_of(message))
        if not ends:
            return None
        subjects = sorted(ends)
        sources, types, ids = zip(*subjects, strict=True)
        return self._follow_many, {
            "consumer": self.consumer,
            "sources": array_literal(sources),
            "subject_types": array_literal(types),
            "subject_ids": array_literal(ids),
            "positions": plain_array(ends[subject] for subject in subjects),
        }

    def finding(self, keys: Collection[Key]) -> Statement:
        """Return the statement that answers with the keys that are stored, each with its run."""
        return self._find, self.keyed(keys)

    def keyed(self, keys: Collection[tuple[str, str]]) -> dict[str, str]:
        """Return the parameters of a statement about some keys of the consumer."""
        return {
            "consumer": self.consumer,
            "sources": array_literal(source for source, _ in keys),
            "dedupe_ids": array_literal(dedupe_id for _, dedupe_id in keys),
        }

    def translate(self, error: Exception, role: str | None = None) -> Exception:
        """Return `SchemaError` or `MissingRight` for an error that is one, others unchanged.

        The error of a driver may be inside a wrapper. `role` is that of the connection, if it is
        not one of the inbox's own.
        """
        cause = driver_error(error) or error
        named = schema_error(cause, self._database.schema, _APPLY)
        return named or missing_right(cause, self._database, "consumer", role=role) or error


def key_of(message: Remembered, method: str) -> Key:
    """Return the key by which a message is remembered. Raises if it has no valid id."""
    source = message.source if isinstance(message, Received) else _NO_SOURCE
    return Key(source, _dedupe_id_of(message, method))


def subject_of(message: Remembered) -> Subject | None:
    """Return the subject of a message that has a place among its other messages."""
    if (placed := _placed(message)) is None:
        return None
    return Subject(placed.source, placed.subject_type, placed.subject_id)


def _order_after(message: Remembered, last: int) -> Order:
    placed = _placed(message)
    if placed is None:
        return "replay" if isinstance(message, Received) else "new"
    if placed.position <= last:
        return "late"
    if placed.previous_position == last:
        return "next"
    return "gap" if last else "first"


def _placed(message: Remembered) -> Received | None:
    """Return a message that has a place among the messages of its subject."""
    return message if isinstance(message, Received) and message.replay is None else None


def _place_of(message: Remembered) -> int:
    return message.position if isinstance(message, Received) else 0


def _dedupe_id_of(message: Remembered, method: str) -> str:
    found: Any = message.id if isinstance(message, Received) else message
    if not isinstance(found, (str, UUID)):
        rule = f"{method} takes an id or a Received message"
        raise wrong_type(rule, found, "a message that from_nats(..) has read")
    text = str(found)
    if not is_id(text):
        rule = f"an id must have 1 to {MAX_ID} characters, no NUL and no half of a surrogate pair"
        raise ValueError(f"{rule}, got {len(text)} characters")
    return text


def remember_in(
    transaction: RunTransaction,
    statements: Statements,
    messages: Mapping[Key, Remembered],
    run_id: str,
) -> Program[dict[Key, Position]]:
    """Begin the transaction of a run, and remember messages in it. Return those that are new.

    The positions are those that they would have one after the other.
    """
    try:
        if len(messages) == 1:
            ((key, message),) = messages.items()
            remembering = statements.remembering(message, key, run_id)
            rows = yield from transaction.begin(statements.guards, run_id, [remembering])
            found = _position_of(message, rows)
            return {} if found is None else {key: found}
        remembering = statements.remembering_all(messages, run_id)
        rows = yield from transaction.begin(statements.guards, run_id, [remembering])
        stored = {Key(*row) for row in rows}
        new = {key: message for key, message in messages.items() if key in stored}
        following = statements.following(new)
        rows = () if following is None else (yield from transaction.run([following]))
        return _positions_of(new, rows)
    except Exception as error:
        translated = statements.translate(error, transaction.role)
        if translated is error:
            raise
        raise translated from error


def _position_of(message: Remembered, rows: Sequence[Row]) -> Position | None:
    """Read the answer of the statement that remembers a message. None: it is not new."""
    if not rows:
        return None
    last = 0 if _placed(message) is None else int(rows[0][0] or 0)
    return _order_after(message, last), last


def _positions_of(messages: Mapping[Key, Remembered], rows: Sequence[Row]) -> dict[Key, Position]:
    """Read the answer about the subjects of new messages, which are in the order of the batch."""
    lasts = {Subject(*subject): int(last) for *subject, last in rows}
    found: dict[Key, Position] = {}
    for key, message in messages.items():
        subject = subject_of(message)
        last = 0 if subject is None else lasts[subject]
        found[key] = _order_after(message, last), last
        if subject is not None:
            lasts[subject] = max(last, _place_of(message))
    return found


def remember(
    given: Any,
    session_of: Callable[[Any, Joining], CallerSession],
    statements: Statements,
    message: Remembered,
) -> Program[Order | None]:
    """Perform `Inbox.remember`."""
    session = session_of(given, REMEMBER)
    key = key_of(message, REMEMBER.method)
    yield from session.join()
    try:
        rows = yield from session.run([statements.remembering(message, key, uuid4().hex)])
    except Exception as error:
        translated = statements.translate(error, session.role)
        if translated is error:
            raise
        raise translated from error
    found = _position_of(message, rows)
    return found and found[0]
