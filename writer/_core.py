"""What both writers do the same: from an event to its steps, and from rows to results."""

import random
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import psycopg

from dsql_outbox.observability import Hook, Scopes, WriteStarted, log_facts, trace_facts
from dsql_outbox.outbox import (
    Database,
    EventSource,
    ParsedEvent,
    SchemaError,
    Touched,
    parse_event,
)
from dsql_outbox.schema import statement

from ._backoff import Backoff
from ._build import Parameters, batch_parameters, one_parameters, prepare, topic_of
from ._settings import WriterSettings
from ._steps import Absent, Call, Found, OnDuplicate, Steps, Stored, write_steps

Row = Sequence[Any]

_touched: Final = msgspec.json.Decoder(tuple[Touched, ...])


class Work:
    """One write call: its statement, its parameters once the shards are known, its steps.

    `sent` tells whether the present attempt may have reached the server.
    """

    def __init__(
        self, core: "Core", event: ParsedEvent, on_duplicate: OnDuplicate, deadline: float | None
    ) -> None:
        topic = topic_of(event, core.settings)
        self.deadline = deadline
        self.sent = False
        self.scopes = Scopes(
            core.hooks, WriteStarted(event.id, event.name, event.type, topic, len(event.touches))
        )
        write_id = uuid4()
        self._prepared = prepare(event, write_id, topic, core.settings.source, self.scopes.carrier)
        self._one = len(event.touches) == 1
        self.statement = core.write_one if self._one else core.write_batch
        self._call = Call(
            event_id=event.id,
            fingerprint=event.fingerprint,
            write_id=write_id,
            entities=tuple((t.entity_type, t.entity_id) for t in event.touches),
            on_duplicate=on_duplicate,
            max_retries=core.settings.max_retries,
        )
        self._backoff = Backoff(core.settings, deadline, random.random)

    @property
    def event_id(self) -> UUID:
        """The id of the event."""
        return self._call.event_id

    def steps(self) -> Steps:
        """The steps of this call, to be driven once."""
        return write_steps(self._call, self._backoff, self.scopes, monotonic)

    def parameters(self, shards: int) -> Parameters:
        """The parameters of `statement`."""
        if self._one:
            return one_parameters(self._prepared, shards)
        return batch_parameters([self._prepared], shards)

    def stored(self, rows: Sequence[Row]) -> Stored:
        """What the statement answered."""
        if self._one:
            ((version, position),) = rows
            return Stored(position, (version,))
        return Stored(rows[0][3], tuple(row[2] for row in rows))


class Core:
    """The parts of a writer that know no connection."""

    def __init__(self, database: Database, settings: WriterSettings, hooks: Iterable[Hook]) -> None:
        self.settings = settings
        self.hooks: tuple[Hook, ...] = (log_facts, trace_facts, *hooks)
        self.schema = database.schema
        self.write_one = statement("event_write_one", database.schema)
        self.write_batch = statement("event_write_batch", database.schema)
        self.find = statement("event_find", database.schema)
        self.shard_count = statement("shard_count", database.schema)

    def work(self, source: EventSource, on_duplicate: OnDuplicate, timeout: float | None) -> Work:
        """Check an event and prepare its write; raises `InvalidEvent`."""
        deadline = None if timeout is None else monotonic() + timeout
        return Work(self, parse_event(source), on_duplicate, deadline)

    def shards(self, rows: Sequence[Row]) -> int:
        """The number of shards; raises `SchemaError` if there is none."""
        ((shards,),) = rows
        if shards == 0:
            raise SchemaError(f"schema {self.schema} has no shards: run `dsql-outbox schema apply`")
        return int(shards)

    def named(self, error: Exception) -> Exception:
        """A missing table in words that say what to do; other errors as they are."""
        missing = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
        if not isinstance(error, missing):
            return error
        named = SchemaError(
            f"schema {self.schema} lacks the outbox tables: run `dsql-outbox schema apply`"
        )
        named.__cause__ = error
        return named


def found(rows: Sequence[Row]) -> Found | Absent:
    """What a look-up by event id answered."""
    if not rows:
        return Absent()
    ((write_id, fingerprint, position, touches),) = rows
    return Found(write_id, bytes(fingerprint), position, _touched.decode(touches))
