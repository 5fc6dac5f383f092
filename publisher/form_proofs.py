"""Statements that ask a database whether it supports those of a publisher, and in which form."""

from collections.abc import Mapping, Sequence
from typing import Any

from dsql_outbox.publisher.relay.sql_store import range_parameters, read_parameters
from dsql_outbox.publisher.relay.store import PassedOver, Range, RowPlace
from dsql_outbox.schema.burial import Letter, burial_parameters
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.outbox_rows import RowId, row_keys

Proof = Sequence[tuple[bytes, dict[str, Any]]]
"""Statements with their parameters, in the order in which they are sent."""


def read_proofs(schema: str, after: RowId, rows: int) -> Mapping[str, Proof]:
    """Return the read of the relay in both forms, for `rows` rows of a shard after a row."""
    ranges = [Range(after.shard, RowPlace(*after[1:]), rows, 1 << 20, rows)]
    passed = PassedOver({}, ())
    single, plain = (statement(name, schema) for name in ("outbox_read", "outbox_read_range"))
    return {
        "single": [(single, read_parameters(ranges, passed))],
        "plain": [(plain, each) for each in range_parameters(ranges, passed)],
    }


def burial_proofs(schema: str, rows: Sequence[RowId]) -> Mapping[str, Proof]:
    """Return the burial of these rows in both forms; each statement changes every row."""
    keys, letters = row_keys(rows), burial_parameters([Letter(row, "", 1) for row in rows])
    copy, delete = (statement(name, schema) for name in ("outbox_copy", "outbox_delete"))
    return {
        "single": [(statement("outbox_bury", schema), letters)],
        "plain": [(copy, letters), (delete, keys)],
    }
