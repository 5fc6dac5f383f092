"""One event for an open transaction, which the caller or `transact` commits. No I/O."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final
from uuid import UUID, uuid4

import msgspec

from dsql_outbox.outbox.errors import DuplicateEvent, StaleVersion
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.sessions.caller_session import CallerSession, Joining
from dsql_outbox.schema.named_statements import read_sql
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Found, Stored, stale_version, touched_entities
from dsql_outbox.writer.statement.parameters import PreparedEvent

APPEND: Final = Joining(
    "Writer", "append_to", "event", "stored", read_sql("statements", "append_failed")
)

TRANSACT: Final = msgspec.structs.replace(APPEND, method="transact")


def receipt_in_transaction(
    prepared: PreparedEvent, stored: Stored, *, attempts: int, conflicts: int
) -> Receipt:
    """Return the receipt of an append. It is valid after the commit."""
    entities = touched_entities(prepared, stored)
    event_id = prepared.event.id
    return Receipt(event_id, "committed", attempts, conflicts, stored.position, entities)


@contextmanager
def translate_errors(
    core: Core, prepared: PreparedEvent, session: CallerSession | None = None
) -> Generator[None]:
    """Translate errors of a driver into `StaleVersion`, `SchemaError` and `MissingRight`.

    `session` is the one whose statements run, if they are not on a connection of the writer.
    """
    try:
        yield
    except Exception as error:
        if stale := stale_version(error):
            event_id, actual = stale
            expected = prepared.expected_version or 0
            raise StaleVersion(event_id, expected=expected, actual=actual) from error
        translated = core.translate(error, None if session is None else session.role)
        if translated is error:
            raise
        raise translated from error


class Joined:
    """An event of `append_to`, for a transaction of the caller."""

    def __init__(self, core: Core, source: EventSource, expected_version: int | None) -> None:
        event, topic = core.parse(source)
        self.scopes = core.start_scopes(event, topic)
        self.prepared = core.prepare(event, topic, uuid4().hex, self.scopes, expected_version)

    def refuse(self, present: Mapping[UUID, Found], error: Exception) -> None:
        """Raise `DuplicateEvent` if the look-up found the event.

        Otherwise a unique violation concerns another key, and the subject was changed by others.
        """
        event = self.prepared.event
        found = present.get(event.id)
        if found is not None:
            same = found.has_content(event.fingerprint)
            raise DuplicateEvent(event.id, same_content=same) from error

    def receipt(self, stored: Stored) -> Receipt:
        """Return the receipt. It is valid after the commit."""
        return receipt_in_transaction(self.prepared, stored, attempts=1, conflicts=0)
