"""Statements that ask a database which forms of a write it supports. No I/O."""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import uuid4

from dsql_outbox.outbox.database.exchange import Statements, numbered
from dsql_outbox.outbox.event.event import Entity, Event
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.settings import DEFAULT_SOURCE
from dsql_outbox.schema.named_statements import statement

from .parameters import PreparedEvent, batch_parameters, one_parameters, prepare
from .plain import Plain

Proof = Sequence[tuple[bytes, Mapping[str, str | None]]]
"""Statements with their parameters, in the order in which they are sent."""


def proofs(schema: str, events: Sequence[Event]) -> Mapping[str, Proof]:
    """Return the statements that write these events in both forms; the first has one entity.

    Run those of a form in a transaction, and roll it back: some servers refuse a statement
    only when it meets rows.
    """
    first, *others = batch = [_prepared(event) for event in events]
    one, many = (statement(f"event_write_{name}", schema) for name in ("one", "batch"))
    plain = Plain(schema).statements(batch, 1)
    return {
        "single": [(one, one_parameters(first, 1)), (many, batch_parameters(others, 1))],
        "plain": [(query.query, parameters) for query, parameters in plain],
    }


def proof_event(*entities: Entity) -> Event:
    """Return an event of such a proof, of entities that nobody else changes."""
    return Event.new("OutboxProof", entities, id=uuid4())  # takes none of a `transact` around it


def single_proof(schema: str) -> Statements:
    """Return the statements that write new events in the single form."""
    first, second = (Entity("OutboxProof", str(uuid4()), {}) for _ in range(2))
    found = proofs(schema, [proof_event(first), proof_event(first, second)])["single"]
    return [(numbered("write_proof", query), parameters) for query, parameters in found]


def _prepared(event: Event) -> PreparedEvent:
    return prepare(parse_event(event), uuid4().hex, "outbox.proof", DEFAULT_SOURCE, {})


_COMMENT: Final = re.compile(rb"--.*\n")


def write_probe(schema: str) -> Statements:
    """Return both statements of the single form, wrapped in EXPLAIN so that they change nothing.

    The statement for one event is only planned, because it always writes a row. The
    statement for a batch is executed with an empty batch. The probe needs no right
    that a write does not need.
    """
    one = numbered("event_write_one", statement("event_write_one", schema))
    batch = statement("event_write_batch", schema)
    explain_one = numbered("write_probe_one", b"EXPLAIN " + _bare(one.query))
    explain_batch = numbered("write_probe_batch", b"EXPLAIN (ANALYZE) " + _bare(batch))
    return [
        (explain_one, dict.fromkeys(explain_one.parameters)),
        (explain_batch, batch_parameters([], 1)),
    ]


def _bare(query: bytes) -> bytes:
    """Remove comments, and convert to lower case.

    So tools that look for INSERT in a statement do not take the probe for a write.
    """
    return _COMMENT.sub(b"", query).lower()
