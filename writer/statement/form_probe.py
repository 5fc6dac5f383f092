"""Statements that ask a database which forms of a write it supports. No I/O."""

import re
from collections.abc import Mapping
from typing import Final
from uuid import uuid4

from dsql_outbox.outbox import DEFAULT_SOURCE, Entity, Event, numbered, parse_event
from dsql_outbox.schema import statement

from .parameters import PreparedEvent, batch_parameters, one_parameters, prepare
from .plain import Plain, Statements


def proofs(schema: str) -> Mapping[str, Statements]:
    """Return the statements of both forms of a write, on rows of their own.

    Run those of a form in a transaction, and roll it back: some servers refuse a statement
    only when it meets rows.
    """
    one, many = _event(1), _event(2)
    numbered_one = numbered("event_write_one", statement("event_write_one", schema))
    numbered_batch = numbered("event_write_batch", statement("event_write_batch", schema))
    return {
        "single": [
            (numbered_one, one_parameters(one, 1)),
            (numbered_batch, batch_parameters([many], 1)),
        ],
        "plain": Plain(schema).statements([one, many], 1),
    }


def _event(entities: int) -> PreparedEvent:
    named = [Entity("OutboxProof", str(uuid4()), {}) for _ in range(entities)]
    event = Event.new("Outbox Proof", "OutboxProof", named)
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
