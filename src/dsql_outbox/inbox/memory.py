"""How a message is remembered: one statement in an open transaction, which tells its order. No I/O.

`once` sends it in a transaction of the inbox, `remember` in one of the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import NumberedQuery, Row, numbered
from dsql_outbox.outbox.failure import driver_error, schema_error
from dsql_outbox.outbox.sessions.caller_session import CallerSession, Joining
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.schema.missing_rights import missing_right
from dsql_outbox.schema.named_statements import guards, read_sql, statement

from .received import MAX_ID, Received, is_id

Remembered = Received | UUID | str
"""A message, or the id by which it is remembered."""

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

_NO_SOURCE: Final = ""
"""The source of an id that is given as such: whoever gives it says which outbox it is of."""


class Statements:
    """The statements of one consumer's inbox."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self.consumer = consumer
        self.guards = guards(database.schema, "inbox_guard")
        self._remember, self._follow, self.find, self.page, self.forget = (
            numbered(name, statement(name, database.schema))
            for name in (
                "inbox_remember",
                "inbox_follow",
                "inbox_find",
                "inbox_page",
                "inbox_forget",
            )
        )

    def key(self, message: Remembered, method: str) -> dict[str, str]:
        """Return the key by which a message is remembered. Raises if it has no valid id."""
        source = message.source if isinstance(message, Received) else _NO_SOURCE
        dedupe_id = _dedupe_id_of(message, method)
        return {"consumer": self.consumer, "source": source, "dedupe_id": dedupe_id}

    def remembering(
        self, message: Remembered, own: Mapping[str, str]
    ) -> tuple[NumberedQuery, Mapping[str, str]]:
        """Return the statement that remembers a message by `own`, its key and the id of the run.

        `order_of` reads the answer.
        """
        placed = _placed(message)
        if placed is None:
            return self._remember, own
        subject = {
            "subject_type": placed.subject_type,
            "subject_id": placed.subject_id,
            "position": str(placed.position),
        }
        return self._follow, {**own, **subject}

    def translate(self, error: Exception, role: str | None = None) -> Exception:
        """Return `SchemaError` or `MissingRight` for an error that is one, others unchanged.

        The error of a driver may be inside a wrapper. `role` is that of the connection, if it is
        not one of the inbox's own.
        """
        cause = driver_error(error) or error
        named = schema_error(cause, self._database.schema)
        return named or missing_right(cause, self._database, "consumer", role=role) or error


def last_position(rows: Sequence[Row]) -> int:
    """Return the last position of a subject before a message, or 0."""
    return int(rows[0][0] or 0)


def order_of(message: Remembered, rows: Sequence[Row]) -> Order | None:
    """Return the order of a message from the answer of its statement. None: it is not new."""
    if not rows:
        return None
    placed = _placed(message)
    if placed is None:
        return "replay" if isinstance(message, Received) else "new"
    last = last_position(rows)
    if placed.position <= last:
        return "late"
    if placed.previous_position == last:
        return "next"
    return "gap" if last else "first"


def _placed(message: Remembered) -> Received | None:
    """Return a message that has a place among the messages of its subject."""
    return message if isinstance(message, Received) and message.replay is None else None


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


def remember(
    given: Any,
    session_of: Callable[[Any, Joining], CallerSession],
    statements: Statements,
    message: Remembered,
) -> Program[Order | None]:
    """Perform `Inbox.remember`."""
    session = session_of(given, REMEMBER)
    own = statements.key(message, REMEMBER.method) | {"run_id": uuid4().hex}
    yield from session.join()
    try:
        rows = yield from session.run([statements.remembering(message, own)])
    except Exception as error:
        translated = statements.translate(error, session.role)
        if translated is error:
            raise
        raise translated from error
    return order_of(message, rows)
