"""The part of a writer that turns events into calls and statements, and reports to the hooks."""

import random
from collections.abc import Callable, Iterable, Sequence
from os import urandom
from typing import Final

from dsql_outbox.observability.facts import DatabaseServer, Fact, WriteStarted
from dsql_outbox.observability.hooks import Hook, Scopes, emit, skips_successes
from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.observability.otel.metrics import metric_facts
from dsql_outbox.observability.otel.spans import trace_facts
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import NumberedQuery, numbered, unprepared
from dsql_outbox.outbox.errors import SchemaError
from dsql_outbox.outbox.event.event_parser import EventSource, ParsedEvent, parse_event
from dsql_outbox.outbox.failure import schema_error
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.schema.named_statements import guards, statement
from dsql_outbox.writer.attempt.backoff import Backoff, budgets_of
from dsql_outbox.writer.attempt.pending import OnDuplicate, Pending, WriteOutcome
from dsql_outbox.writer.conflicts.conflict_log import ConflictLog
from dsql_outbox.writer.statement.answers import Row, Stored, stored_events, targets_of
from dsql_outbox.writer.statement.chunks import ONE_TARGET, refuse_unsendable
from dsql_outbox.writer.statement.form_probe import single_proof, write_probe
from dsql_outbox.writer.statement.parameters import (
    Parameters,
    batch_parameters,
    one_parameters,
    prepare,
)
from dsql_outbox.writer.statement.plain import Plain, Statements

from .backlog_alarm import Alarm
from .settings import WriterSettings
from .topic_template import topic_of

_COMMIT: Final[tuple[NumberedQuery, Parameters]] = (unprepared(b"COMMIT"), {})
_ROLLBACK: Final[tuple[NumberedQuery, Parameters]] = (unprepared(b"ROLLBACK"), {})


class Core:
    """The part of a writer that uses no connection."""

    def __init__(self, database: Database, settings: WriterSettings, hooks: Iterable[Hook]) -> None:
        self.settings = settings
        self.database = database
        self.fresh_retries = settings.connections == "new"
        self._hooks: tuple[Hook, ...] = (log_facts, trace_facts, metric_facts, *hooks)
        self.alarm = Alarm(database, settings, self._hooks)
        self.conflicts = ConflictLog(database, settings, self._hooks)
        self._schema = database.schema
        self.server = _server_of(database)
        self._write_one, self._write_batch = (
            numbered(name, statement(name, database.schema))
            for name in ("event_write_one", "event_write_batch")
        )
        self.find = statement("event_find", database.schema)
        self.entity = statement("entity_state", database.schema)
        self.stream = statement("event_stream", database.schema)
        self.archived = statement("archived_events", database.schema)
        self.guards = guards(database.schema, "event_guard")
        self.layout = statement("write_layout", database.schema)
        layout = numbered("write_layout", self.layout)
        self.probe: Statements = [(layout, {}), *write_probe(database.schema)]
        self.targets = ONE_TARGET
        """The targets that get messages, as the database said last."""
        self._budgets = budgets_of(settings)
        self.must_probe = settings.form == "auto"
        self.plain = settings.form == "plain"
        self._plain = Plain(database.schema)

    def parse(self, source: EventSource) -> tuple[ParsedEvent, str]:
        """Check an event, and return it with its topic.

        Raises `InvalidEvent`, before any hook receives a fact.
        """
        event = parse_event(source)
        topic = topic_of(event, self.settings.topic, any_topic=self.settings.any_topic)
        refuse_unsendable(event, topic, self.settings.source, self.targets)
        return event, topic

    def pend(  # noqa: PLR0913 - one argument per part of the call
        self,
        source: EventSource,
        gate: Gate,
        *,
        on_duplicate: OnDuplicate,
        expected_version: int | None,
        settled: Callable[[WriteOutcome], None] | None = None,
        quiet: Scopes | None = None,
    ) -> Pending:
        """Check an event and prepare its write. Raises `InvalidEvent`.

        `quiet` are the scopes of a call of many events, if they are quiet (`quiet_scopes`).
        """
        event, topic = self.parse(source)
        settings = self.settings
        scopes = quiet or self.scopes_of(event, topic)
        return Pending(
            prepare(
                event,
                urandom(16).hex(),
                topic,
                settings.source,
                scopes.carrier,
                expected_version=expected_version,
            ),
            self.backoff(gate.deadline),
            scopes,
            on_duplicate=on_duplicate,
            settled=settled,
        )

    def backoff(self, deadline: float | None) -> Backoff:
        """Return the retries of a call, of which none is spent."""
        return Backoff(self._budgets, self.database, deadline, random.random)

    def quiet_scopes(self) -> Scopes | None:
        """Return scopes for any number of writes that start now, if no hook wants to know."""
        return Scopes(self._hooks, None) if all(map(skips_successes, self._hooks)) else None

    def scopes_of(self, event: ParsedEvent, topic: str) -> Scopes:
        """Report the start of a write to the hooks, and return their scopes."""
        if quiet := self.quiet_scopes():
            return quiet
        touches = len(event.touches)
        started = WriteStarted(event.id, event.name, event.type, topic, touches, self.server)
        return self.scopes(started)

    def scopes(self, started: WriteStarted) -> Scopes:
        """Report the start of a call to the hooks, and return their scopes."""
        return Scopes(self._hooks, started)

    def tell(self, fact: Fact) -> None:
        """Report a fact that belongs to no single write."""
        emit(self._hooks, fact)

    def proof(self, begin: bytes) -> Statements:
        """Return the statements that write in the single form, from `begin` to ROLLBACK."""
        return [(unprepared(begin), {}), *single_proof(self._schema), _ROLLBACK]

    def write(self, batch: Sequence[Pending], shards: int) -> tuple[NumberedQuery, Parameters]:
        """Return the statement that writes these events, and its parameters."""
        if _is_one(batch):
            return self._write_one, one_parameters(batch[0].prepared, shards)
        prepared = [pending.prepared for pending in batch]
        return self._write_batch, batch_parameters(prepared, shards)

    def transaction(self, batch: Sequence[Pending], shards: int, begin: bytes) -> Statements:
        """Return the statements that write these events, from `begin` to COMMIT."""
        return [(unprepared(begin), {}), *self.statements(batch, shards), _COMMIT]

    def statements(self, batch: Sequence[Pending], shards: int) -> Statements:
        """Return the statements that write these events in an open transaction."""
        if self.plain:
            return self._plain.statements([pending.prepared for pending in batch], shards)
        return [self.write(batch, shards)]

    def shards(self, rows: Sequence[Row]) -> int:
        """Return the number of shards from the layout in `rows`, and keep that of the targets.

        Raises `SchemaError` if there is no shard, or not even the default target.
        """
        shards, known = map(int, rows[0][:2])
        self.targets = targets_of(rows)
        for number, what in ((shards, "shards"), (known, "targets")):
            if number == 0:
                raise SchemaError(
                    f"schema {self._schema} has no {what}: run `dsql-outbox schema apply`"
                )
        return shards

    def stored(self, sent: Sequence[Pending], rows: Sequence[Row]) -> list[Stored]:
        """Return what each event got from the answer of its write. Keep its number of targets."""
        self.targets = targets_of(rows)
        return stored_events([pending.prepared for pending in sent], rows)

    def named(self, error: Exception) -> Exception:
        """Return `SchemaError` for a missing table or column, and any other error unchanged."""
        return schema_error(error, self._schema) or error


def receipt_of(pending: Pending) -> Receipt:
    """Return the receipt of a settled call, or raise its exception."""
    outcome = pending.outcome
    if isinstance(outcome, Receipt):
        return outcome
    assert outcome is not None  # noqa: S101 - `settle` ends after every event is settled
    raise outcome


def _is_one(batch: Sequence[Pending]) -> bool:
    return len(batch) == 1 and len(batch[0].prepared.event.touches) == 1


def _server_of(database: Database) -> DatabaseServer:
    host, port, dbname = database.endpoint
    return DatabaseServer(host, port, f"{dbname}.{database.schema}" if dbname else database.schema)
