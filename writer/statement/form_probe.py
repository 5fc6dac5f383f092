"""Statements that ask a database whether it supports the single form of a write. No I/O."""

import re
from typing import Final

from dsql_outbox.outbox import numbered
from dsql_outbox.schema import statement

from .parameters import batch_parameters
from .plain import Statements

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
