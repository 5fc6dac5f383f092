"""The parameters of the four plain inserts as psycopg sends them: text, and array literals."""

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.four_inserts import COLUMNS, columns

from dsql_outbox.outbox.database.array_literals import array_literal


def batch_parameters(events: Sequence[bytes]) -> dict[str, str]:
    """The parameters of `batch_statement`."""
    found = zip(COLUMNS, columns(events), strict=True)
    return {name: array_literal(map(_text, column)) for name, column in found}


def _text(value: Any) -> str:
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
