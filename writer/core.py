"""The part of a writer that turns events into calls, and reports to the hooks."""

from collections.abc import Iterable

from dsql_outbox.observability.facts import DatabaseServer, Fact, WritesStored, WriteStarted
from dsql_outbox.observability.hooks import Hook, Scopes, emit, skips_successes, takes_calls
from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.observability.otel.metrics import metric_facts
from dsql_outbox.observability.otel.spans import trace_facts
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.event.event_parser import EventSource, ParsedEvent, parse_event
from dsql_outbox.outbox.failure import driver_error, schema_error
from dsql_outbox.outbox.settings import NO_DOORBELL
from dsql_outbox.schema.missing_rights import missing_right
from dsql_outbox.schema.named_statements import guards, statement
from dsql_outbox.writer.statement.chunks import refuse_unsendable
from dsql_outbox.writer.statement.parameters import PreparedEvent, prepare
from dsql_outbox.writer.statement.write_statements import WriteStatements

from .backlog_alarm import Alarm
from .budgets import budgets_of
from .settings import WriterSettings
from .topic_template import topic_of
from .tuned_settings import TunedSettings


class Core:
    """The part of a writer that uses no connection."""

    def __init__(self, database: Database, settings: WriterSettings, hooks: Iterable[Hook]) -> None:
        if settings.doorbell and database.is_dsql:
            raise SettingsError(NO_DOORBELL.format("WriterSettings"))
        settings = self.settings = TunedSettings.of(settings)
        self.database = database
        self.hooks: tuple[Hook, ...] = (log_facts, trace_facts, metric_facts, *hooks)
        self.alarm = Alarm(database, settings, self.hooks)
        self.server = _server_of(database)
        self.statements = WriteStatements(database.schema, settings.form)
        self.find = statement("event_find", database.schema)
        self.entity = statement("entity_state", database.schema)
        self.stream = statement("event_stream", database.schema)
        self.guards = guards(database.schema, "event_guard")
        self.budgets = budgets_of(settings)

    def parse(self, source: EventSource) -> tuple[ParsedEvent, str]:
        """Check an event, and return it with its topic.

        Raises `InvalidEvent`, before any hook receives a fact.
        """
        event = parse_event(source)
        topic = topic_of(event, self.settings.topic)
        refuse_unsendable(event, topic, self.settings.source, self.statements.target_counts)
        return event, topic

    def prepare(
        self,
        event: ParsedEvent,
        topic: str,
        write_id: str,
        scopes: Scopes,
        expected_version: int | None,
    ) -> PreparedEvent:
        """Prepare the rows of a checked event, with the headers that the scopes of its call add.

        Raises `InvalidEvent` if one of these is not a valid header.
        """
        source, carrier = self.settings.source, scopes.carrier
        return prepare(event, write_id, topic, source, carrier, expected_version=expected_version)

    def quiet_scopes(self) -> Scopes | None:
        """Return scopes for any number of writes that start now, if no hook wants to know each."""
        wanting = [hook for hook in self.hooks if not skips_successes(hook)]
        if all(map(takes_calls, wanting)):
            return Scopes(self.hooks, None, is_silent=not wanting)
        return None

    def start_scopes(self, event: ParsedEvent, topic: str) -> Scopes:
        """Report the start of a write to the hooks, and return their scopes."""
        if quiet := self.quiet_scopes():
            return quiet
        touches = len(event.touches)
        started = WriteStarted(event.id, event.name, event.type, topic, touches, self.server)
        return Scopes(self.hooks, started)

    def tell(self, fact: Fact) -> None:
        """Report a fact that belongs to no single write."""
        emit(self.hooks, fact)

    def tell_stored(self, fact: WritesStored) -> None:
        """Report what a transaction has stored to the hooks that are not told of each event."""
        emit(filter(takes_calls, self.hooks), fact)

    def translate(self, error: Exception, role: str | None = None) -> Exception:
        """Return `SchemaError` or `MissingRight` for an error that is one, and any other unchanged.

        The error of a driver may be inside a wrapper. `role` is that of the connection, if it is
        not one of the writer's own.
        """
        cause = driver_error(error) or error
        named = schema_error(cause, self.database.schema)
        return named or missing_right(cause, self.database, "writer", role=role) or error


def _server_of(database: Database) -> DatabaseServer:
    host, port, dbname = database.endpoint
    return DatabaseServer(host, port, f"{dbname}.{database.schema}" if dbname else database.schema)
