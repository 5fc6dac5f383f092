"""The plain form of a write, for a database without data-modifying CTEs. No I/O.

The form is one transaction of five statements (`schema/statements/plain_*.sql`). The later
statements read the versions that the first one assigned. `pipeline` sends all of them.
"""

from collections.abc import Sequence
from typing import Final

from dsql_outbox.outbox.database.exchange import Statements, numbered
from dsql_outbox.schema.named_statements import statement

from .parameters import PreparedEvent, batch_parameters

_NAMES: Final = ("entities", "events", "headers", "outbox", "receipt")


class Plain:
    """The statements of the plain form for the tables of one schema."""

    def __init__(self, schema: str) -> None:
        self._statements = [
            numbered(f"plain_{name}", statement(f"plain_{name}", schema)) for name in _NAMES
        ]

    def statements(self, batch: Sequence[PreparedEvent], shards: int) -> Statements:
        """Return the statements that write these events in an open transaction.

        The last statement returns the same rows as ``event_write_batch``.
        """
        parameters = batch_parameters(batch, shards)
        return [(query, parameters) for query in self._statements]
