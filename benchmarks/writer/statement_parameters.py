"""Parameters of the library's statements, for runs of the bare statement.

It is the only part of the benchmarks that knows how the writer prepares an event.
"""

from collections.abc import Iterable, Mapping
from uuid import uuid4

from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.writer.statement.parameters import (
    PreparedEvent,
    batch_parameters,
    one_parameters,
    prepare,
)

SHARDS = 16

Parameters = Mapping[str, str | None]


def single(event: bytes) -> Parameters:
    """The parameters of ``event_write_one``."""
    return one_parameters(_prepared(event), SHARDS)


def batch(events: Iterable[bytes]) -> Parameters:
    """The parameters of ``event_write_batch``."""
    return batch_parameters([_prepared(event) for event in events], SHARDS)


def _prepared(event: bytes) -> PreparedEvent:
    return prepare(parse_event(event), uuid4().hex, "events.CarMoved", "/dsql-outbox", {})
