"""The part of a writer that both writers share: from events to steps, from rows to results."""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from os import urandom
from time import monotonic
from typing import Any, Final

import msgspec
import psycopg

from dsql_outbox.observability import (
    Fact,
    Hook,
    Scopes,
    WriteStarted,
    emit,
    log_facts,
    metric_facts,
    trace_facts,
)
from dsql_outbox.outbox import (
    Database,
    EventSource,
    NumberedQuery,
    ParsedEvent,
    Receipt,
    SchemaError,
    Touched,
    array_literal,
    numbered,
    parse_event,
    schema_error,
)
from dsql_outbox.schema import statement
from dsql_outbox.writer.attempt.backoff import Backoff
from dsql_outbox.writer.attempt.pending import Found, OnDuplicate, Pending, Stored, WriteOutcome
from dsql_outbox.writer.attempt.steps import Committed, Present, Result
from dsql_outbox.writer.statement.chunks import refuse_unsendable
from dsql_outbox.writer.statement.form_probe import write_probe
from dsql_outbox.writer.statement.parameters import (
    Parameters,
    batch_parameters,
    one_parameters,
    prepare,
    topic_of,
)
from dsql_outbox.writer.statement.plain import Plain, Statements

from .backlog_alarm import Alarm
from .settings import WriterSettings

Row = Sequence[Any]

_COLUMNS_OF_ONE: Final = 2
"""``event_write_one`` returns a version and a position. ``event_write_batch`` returns more."""

_touched: Final = msgspec.json.Decoder(tuple[Touched, ...])


class Job:
    """The state of one drive of steps.

    `deadline` is a time of the monotonic clock, or None. `sent` is True if the write of
    the current step may have reached the server. `known` is the result of the current
    step, as soon as it is known.
    """

    __slots__ = ("deadline", "known", "sent")

    def __init__(self, timeout: float | None) -> None:
        self.deadline = None if timeout is None else monotonic() + timeout
        self.known: Result = None
        self.sent = False

    def send(self, what: str) -> None:
        """Record that `what` is about to be sent, so from now on it may be stored.

        Raises the driver's `OperationalError` after the deadline. A write that is sent
        after it could only end in `OutcomeUnknown`.
        """
        if self.deadline is not None and monotonic() >= self.deadline:
            raise psycopg.OperationalError(
                f"{what} was not sent: the deadline of the call (timeout) has passed"
            )
        self.sent = True


class Core:
    """The part of a writer that uses no connection."""

    def __init__(self, database: Database, settings: WriterSettings, hooks: Iterable[Hook]) -> None:
        self.settings = settings
        self.fresh_retries = settings.connections == "new"
        self._hooks: tuple[Hook, ...] = (log_facts, trace_facts, metric_facts, *hooks)
        self.alarm = Alarm(database, settings, self._hooks)
        self._schema = database.schema
        self._write_one, self._write_batch = (
            numbered(name, statement(name, database.schema))
            for name in ("event_write_one", "event_write_batch")
        )
        self.find = statement("event_find", database.schema)
        self.stream = statement("event_stream", database.schema)
        self.shard_count = statement("shard_count", database.schema)
        self.probe = [(self.shard_count, None), *write_probe(database.schema)]
        self.must_probe = settings.form == "auto"
        self.plain = settings.form == "plain"
        self._plain = Plain(database.schema)

    def parse(self, source: EventSource) -> tuple[ParsedEvent, str]:
        """Check an event, and return it with its topic.

        Raises `InvalidEvent`, before any hook receives a fact.
        """
        event = parse_event(source)
        topic = topic_of(event, self.settings)
        refuse_unsendable(event, topic, self.settings.source)
        return event, topic

    def pend(
        self,
        source: EventSource,
        job: Job,
        *,
        on_duplicate: OnDuplicate,
        expected_version: int | None = None,
        settled: Callable[[WriteOutcome], None] | None = None,
    ) -> Pending:
        """Check an event and prepare its write. Raises `InvalidEvent`."""
        event, topic = self.parse(source)
        settings = self.settings
        started = WriteStarted(event.id, event.name, event.type, topic, len(event.touches))
        scopes = Scopes(self._hooks, started)
        return Pending(
            prepare(
                event,
                urandom(16).hex(),
                topic,
                settings.source,
                scopes.carrier,
                expected_version=expected_version,
            ),
            Backoff(settings, job.deadline, random.random),
            scopes,
            on_duplicate=on_duplicate,
            settled=settled,
        )

    def scopes(self, started: WriteStarted) -> Scopes:
        """Report the start of a write to the hooks, and return their scopes."""
        return Scopes(self._hooks, started)

    def tell(self, fact: Fact) -> None:
        """Report a fact that belongs to no single write."""
        emit(self._hooks, fact)

    def write(self, batch: Sequence[Pending], shards: int) -> tuple[NumberedQuery, Parameters]:
        """Return the statement that writes these events, and its parameters."""
        if _is_one(batch):
            return self._write_one, one_parameters(batch[0].prepared, shards)
        prepared = [pending.prepared for pending in batch]
        return self._write_batch, batch_parameters(prepared, shards)

    def transaction(self, batch: Sequence[Pending], shards: int, begin: bytes) -> Statements:
        """Return the statements that write these events, from `begin` to COMMIT."""
        return [(begin, None), *self.statements(batch, shards), (b"COMMIT", None)]

    def statements(self, batch: Sequence[Pending], shards: int) -> Statements:
        """Return the statements that write these events in an open transaction."""
        if self.plain:
            return self._plain.statements([pending.prepared for pending in batch], shards)
        query, values = self.write(batch, shards)
        return [(query.query, values)]

    def shards(self, rows: Sequence[Row]) -> int:
        """Return the number of shards from `rows`. Raises `SchemaError` if there is no shard."""
        ((shards,),) = rows
        if shards == 0:
            raise SchemaError(
                f"schema {self._schema} has no shards: run `dsql-outbox schema apply`"
            )
        return int(shards)

    def named(self, error: Exception) -> Exception:
        """Return `SchemaError` for a missing table or column, and any other error unchanged."""
        return schema_error(error, self._schema) or error


def committed(batch: Sequence[Pending], rows: Sequence[Row]) -> Committed:
    """Return the result of the statement of `Core.write`, with one entry per event.

    Numbers in `rows` may be text.
    """
    if len(rows[0]) == _COLUMNS_OF_ONE:
        ((version, position),) = rows
        return Committed([Stored(int(position), (int(version),))])
    return committed_batch(batch, rows)


def committed_batch(batch: Sequence[Pending], rows: Sequence[Row]) -> Committed:
    """Parse the answer of a batch statement: one row per touch."""
    answers = iter(rows)
    stored: list[Stored] = []
    for pending in batch:
        subject, *others = islice(answers, len(pending.prepared.event.touches))
        versions = (int(subject[2]), *(int(row[2]) for row in others))
        stored.append(Stored(int(subject[3]), versions))
    return Committed(stored)


def present(rows: Sequence[Row]) -> Present:
    """Parse the answer of ``event_find``."""
    return Present(
        {
            event_id: Found(write_id.hex, bytes(fingerprint), position, _touched.decode(touches))
            for event_id, write_id, fingerprint, position, touches in rows
        }
    )


def find_parameters(ids: Sequence[Any]) -> Parameters:
    """Return the parameters of ``event_find``."""
    return {"ids": array_literal(ids)}


def receipt_of(pending: Pending) -> Receipt:
    """Return the receipt of a settled call, or raise its exception."""
    outcome = pending.outcome
    if isinstance(outcome, Receipt):
        return outcome
    assert outcome is not None  # noqa: S101 - the steps end only after every event is settled
    raise outcome


def _is_one(batch: Sequence[Pending]) -> bool:
    return len(batch) == 1 and len(batch[0].prepared.event.touches) == 1
