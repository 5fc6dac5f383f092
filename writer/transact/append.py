"""Write one event into an open transaction, which the caller or `transact` commits."""

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from dsql_outbox.observability import Scopes, WriteStarted
from dsql_outbox.outbox import (
    DuplicateEvent,
    EventSource,
    ParsedEvent,
    Receipt,
    StaleVersion,
    Touched,
)
from dsql_outbox.writer.attempt.backoff import Backoff
from dsql_outbox.writer.attempt.pending import Pending, Stored
from dsql_outbox.writer.attempt.steps import Present
from dsql_outbox.writer.core import Core, committed, committed_batch
from dsql_outbox.writer.statement.parameters import prepare
from dsql_outbox.writer.statement.pipeline import run_inside, run_inside_async

_BAD_CAST: Final = "22P02"
"""The SQLSTATE by which the write statements report a version that was not expected."""


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
    never = Backoff(core.settings, None, random.random)
    return Pending(prepared, never, scopes, on_duplicate="error")


def append(
    core: Core, connection: psycopg.Connection[Any], shards: int, pending: Pending
) -> Stored:
    """Write the event in the connection's transaction, in one round trip.

    The cursor is psycopg's own, whatever row and cursor factories the connection has.
    """
    with explained(core, pending):
        if core.plain:
            rows = run_inside(connection, core.statements([pending], shards))
            return committed_batch([pending], rows).stored[0]
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        query, values = core.write([pending], shards)
        answer = cursor.execute(query.query, values).fetchall()
    return committed([pending], answer).stored[0]


async def append_async(
    core: Core, connection: psycopg.AsyncConnection[Any], shards: int, pending: Pending
) -> Stored:
    """Write the event in the connection's transaction, in one round trip.

    The cursor is psycopg's own, whatever row and cursor factories the connection has.
    """
    with explained(core, pending):
        if core.plain:
            rows = await run_inside_async(connection, core.statements([pending], shards))
            return committed_batch([pending], rows).stored[0]
        cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        query, values = core.write([pending], shards)
        await cursor.execute(query.query, values)
        answer = await cursor.fetchall()
    return committed([pending], answer).stored[0]


def receipt_in_transaction(
    pending: Pending, stored: Stored, *, attempts: int, conflicts: int
) -> Receipt:
    """Return the receipt of an append. It is valid after the commit."""
    entities = tuple(
        Touched(touch.entity_type, touch.entity_id, version)
        for touch, version in zip(pending.prepared.event.touches, stored.versions, strict=True)
    )
    return Receipt(pending.id, "committed", attempts, conflicts, stored.position, entities)


@contextmanager
def explained(core: Core, pending: Pending) -> Generator[None]:
    """Translate two errors of the driver into `StaleVersion` and `SchemaError`."""
    try:
        yield
    except psycopg.Error as error:
        actual = _actual_version(pending.id, error)
        if actual is not None:
            expected = pending.prepared.expected_version or 0
            raise StaleVersion(pending.id, expected=expected, actual=actual) from error
        named = core.named(error)
        if named is error:
            raise
        raise named from error


def require_transaction(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise `ProgrammingError` for a connection that would commit the event on its own."""
    idle = connection.info.transaction_status is TransactionStatus.IDLE
    if connection.autocommit and idle:
        raise psycopg.ProgrammingError(
            "append_to needs an open transaction: this connection is in autocommit mode, "
            "so the event would be stored on its own; use `with connection.transaction():`"
        )


class Joined:
    """An event of `append_to`, for a transaction of the caller."""

    def __init__(self, core: Core, source: EventSource, expected_version: int | None) -> None:
        event, topic = core.parse(source)
        self.scopes = core.scopes(
            WriteStarted(event.id, event.name, event.type, topic, len(event.touches))
        )
        self.pending = appended(
            core, event, topic, uuid4().hex, self.scopes, expected_version=expected_version
        )

    def refuse(self, present: Present, error: psycopg.errors.UniqueViolation) -> None:
        """Raise `DuplicateEvent` if the look-up found the event.

        Otherwise the unique violation concerns another key.
        """
        found = present.found.get(self.pending.id)
        if found is not None:
            same = found.fingerprint == self.pending.prepared.event.fingerprint
            raise DuplicateEvent(self.pending.id, same_content=same) from error

    def receipt(self, stored: Stored) -> Receipt:
        """Return the receipt. It is valid after the commit."""
        return receipt_in_transaction(self.pending, stored, attempts=1, conflicts=0)


def _actual_version(event_id: UUID, error: psycopg.Error) -> int | None:
    """Return the version of the subject, or None if the error is not about the version.

    The statement casts the text ``stale <id> <version>`` to a number, and the error quotes it.
    """
    if error.sqlstate != _BAD_CAST:
        return None
    _, _, rest = str(error).partition(f'"stale {event_id} ')
    return int(rest.partition('"')[0]) if rest else None
