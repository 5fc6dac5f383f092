"""Whether a database takes the single form of a write, asked with the real statements: pure."""

import re
from typing import Final

from dsql_outbox.outbox import numbered
from dsql_outbox.schema import statement

from .parameters import batch_parameters
from .plain import Statements

_COMMENT: Final = re.compile(rb"--.*\n")


def write_probe(schema: str) -> Statements:
    """Both statements of the single form, put so that they change nothing.

    The fast one cannot be run on no event, so it is only planned; the batch is run
    on no event. They need no right that a write does not need.
    """
    one = numbered("event_write_one", statement("event_write_one", schema))
    batch = statement("event_write_batch", schema)
    return [
        (b"EXPLAIN " + _bare(one.query), dict.fromkeys(one.parameters)),
        (b"EXPLAIN (ANALYZE) " + _bare(batch), batch_parameters([], 1)),
    ]


def _bare(query: bytes) -> bytes:
    """Without comments, and in lower case: who looks for INSERT or COMMIT looks for a write."""
    return _COMMENT.sub(b"", query).lower()
