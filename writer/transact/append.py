"""One event for an open transaction, which the caller or `transact` commits. No I/O."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg

from dsql_outbox.observability.hooks import Scopes
from dsql_outbox.outbox.errors import DuplicateEvent, StaleVersion
from dsql_outbox.outbox.event.event_parser import EventSource, ParsedEvent
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.writer.attempt.pending import Pending
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Found, Stored, stale_version, touched_entities
from dsql_outbox.writer.statement.parameters import prepare


def appended(  # noqa: PLR0913 - one argument per part of the event
    core: Core,
    event: ParsedEvent,
    topic: str,
    write_id: str,
    scopes: Scopes,
    *,
    expected_version: int | None,
) -> Pending:
    """Prepare an event that was checked, for a write that is not retried."""
    prepared = prepare(
        event,
        write_id,
        topic,
        core.settings.source,
        scopes.carrier,
        expected_version=expected_version,
    )
    return Pending(prepared, core.backoff(None), scopes, on_duplicate="error")


def receipt_in_transaction(
    pending: Pending, stored: Stored, *, attempts: int, conflicts: int
) -> Receipt:
    """Return the receipt of an append. It is valid after the commit."""
    entities = touched_entities(pending.prepared, stored)
    return Receipt(pending.id, "committed", attempts, conflicts, stored.position, entities)


@contextmanager
def explained(core: Core, pending: Pending) -> Generator[None]:
    """Translate two errors of the driver into `StaleVersion` and `SchemaError`."""
    try:
        yield
    except psycopg.Error as error:
        if stale := stale_version(error):
            event_id, actual = stale
            expected = pending.prepared.expected_version or 0
            raise StaleVersion(event_id, expected=expected, actual=actual) from error
        named = core.named(error)
        if named is error:
            raise
        raise named from error


class Joined:
    """An event of `append_to`, for a transaction of the caller."""

    def __init__(self, core: Core, source: EventSource, expected_version: int | None) -> None:
        event, topic = core.parse(source)
        self.scopes = core.scopes_of(event, topic)
        self.pending = appended(
            core, event, topic, uuid4().hex, self.scopes, expected_version=expected_version
        )

    def refuse(self, present: Mapping[UUID, Found], error: psycopg.Error) -> None:
        """Raise `DuplicateEvent` if the look-up found the event.

        Otherwise the unique violation concerns another key.
        """
        found = present.get(self.pending.id)
        if found is not None:
            same = found.has_content(self.pending.prepared.event.fingerprint)
            raise DuplicateEvent(self.pending.id, same_content=same) from error

    def receipt(self, stored: Stored) -> Receipt:
        """Return the receipt. It is valid after the commit."""
        return receipt_in_transaction(self.pending, stored, attempts=1, conflicts=0)
