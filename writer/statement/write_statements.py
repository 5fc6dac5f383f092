"""The statements of a write, in either form, and what the database has said about them. No I/O."""

from collections.abc import Sequence
from typing import Final, Literal

from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Row,
    Statements,
    numbered,
    unprepared,
)
from dsql_outbox.outbox.errors import SchemaError
from dsql_outbox.schema.named_statements import statement

from .answers import Stored, stored_events, target_counts_of
from .chunks import ONE_TARGET
from .form_probe import single_proof, write_probe
from .parameters import Parameters, PreparedEvent, batch_parameters, one_parameters
from .plain import Plain

_COMMIT: Final[tuple[NumberedQuery, Parameters]] = (unprepared(b"COMMIT"), {})
_ROLLBACK: Final[tuple[NumberedQuery, Parameters]] = (unprepared(b"ROLLBACK"), {})


class WriteStatements:
    """The statements of one writer, for the tables of one schema.

    `shards` is the number of shards, or 0 before the layout was read. `target_counts` is what the
    database said last of the targets that get messages. `is_plain` is whether a write has the
    plain form, and `may_choose` whether the database decides that.
    """

    def __init__(self, schema: str, form: Literal["auto", "single", "plain"]) -> None:
        self.layout = statement("write_layout", schema)
        layout = numbered("write_layout", self.layout)
        self.probe: Statements = [(layout, {}), *write_probe(schema)]
        self.shards = 0
        self.target_counts = ONE_TARGET
        self.may_choose = form == "auto"
        self.is_plain = form == "plain"
        self._schema = schema
        self._one, self._batch = (
            numbered(name, statement(name, schema))
            for name in ("event_write_one", "event_write_batch")
        )
        self._plain = Plain(schema)

    def single(self, batch: Sequence[PreparedEvent]) -> tuple[NumberedQuery, Parameters]:
        """Return the statement of the single form that writes these events."""
        if len(batch) == 1 and len(batch[0].event.touches) == 1:
            return self._one, one_parameters(batch[0], self.shards)
        return self._batch, batch_parameters(batch, self.shards)

    def inside(self, batch: Sequence[PreparedEvent]) -> Statements:
        """Return the statements that write these events in an open transaction."""
        if self.is_plain:
            return self._plain.statements(batch, self.shards)
        return [self.single(batch)]

    def transaction(self, batch: Sequence[PreparedEvent], begin: bytes) -> Statements:
        """Return the statements that write these events, from `begin` to COMMIT."""
        return [(unprepared(begin), {}), *self.inside(batch), _COMMIT]

    def proof(self, begin: bytes) -> Statements:
        """Return the statements that write in the single form, from `begin` to ROLLBACK."""
        return [(unprepared(begin), {}), *single_proof(self._schema), _ROLLBACK]

    def read_layout(self, rows: Sequence[Row]) -> None:
        """Keep the numbers of shards and targets from the answer of `layout`.

        Raises `SchemaError` if there is no shard, or not even the default target.
        """
        shards, known = map(int, rows[0][:2])
        self.target_counts = target_counts_of(rows)
        for number, what in ((shards, "shards"), (known, "targets")):
            if number == 0:
                raise SchemaError(
                    f"schema {self._schema} has no {what}: run `dsql-outbox schema apply`"
                )
        self.shards = shards

    def read_answer(self, batch: Sequence[PreparedEvent], rows: Sequence[Row]) -> list[Stored]:
        """Return what each event got from the answer of its write. Keep the targets that it names.

        Numbers in `rows` may be text.
        """
        self.target_counts = target_counts_of(rows)
        return stored_events(batch, rows)
