"""The plain form of a write, for a database without data-modifying CTEs: pure.

One transaction, whose later statements read back what the first ones gave; see
`schema/statements/plain_*.sql`, and `_pipeline` for how it is sent.
"""

from collections.abc import Sequence
from typing import Final

from dsql_outbox.schema import statement

from .parameters import Parameters, PreparedEvent, batch_parameters

Statements = Sequence[tuple[bytes, Parameters | None]]
"""Statements with their parameters; from BEGIN to COMMIT, the last but one answers rows."""

_NAMES: Final = ("entities", "events", "headers", "outbox", "receipt")


class Plain:
    """The statements on the tables of one schema."""

    def __init__(self, schema: str) -> None:
        self._statements = [statement(f"plain_{name}", schema) for name in _NAMES]

    def statements(self, batch: Sequence[PreparedEvent], shards: int) -> Statements:
        """What writes these events in an open transaction; the last answers as the batch does."""
        parameters = batch_parameters(batch, shards)
        return [(query, parameters) for query in self._statements]
