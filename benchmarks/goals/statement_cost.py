"""The cost of the batch statement beside four plain inserts of the same rows."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import psycopg
from benchmarks.measure import median_ratio
from benchmarks.peers.four_inserts import batch_statement
from benchmarks.peers.four_inserts_as_text import batch_parameters
from benchmarks.relay.rows import new_database
from benchmarks.sample_event import sample_events
from benchmarks.writer.statement_parameters import batch

from dsql_outbox.schema.named_statements import statement

from .conditions import Conditions

SIZES = (100, 1_400)
_WARM = 6  # executions until PostgreSQL has chosen a generic or a custom plan
_A_ROUND = 8_400  # events of each statement

Parameters = Callable[[list[bytes]], Mapping[str, Any]]


class _Prepared:
    """A statement on its own connection; `seconds` executes it for the next events."""

    def __init__(self, url: str, text: str | bytes, parameters: Parameters) -> None:
        self._text = text.encode() if isinstance(text, str) else text
        self._parameters = parameters
        self._first = 0
        self.connection = psycopg.connect(url)

    def seconds(self, size: int) -> float:
        """The seconds of the statement itself, without its commit."""
        parameters = self._parameters(sample_events(self._first, size))
        self._first += size
        began = perf_counter()
        self.connection.execute(self._text, parameters, prepare=True)
        took = perf_counter() - began
        self.connection.commit()
        return took


def statements(conditions: Conditions) -> list[float]:
    """The batch statement over four plain inserts, for each number of events in `SIZES`."""
    return [_ratio(conditions, size) for size in SIZES]


def _ratio(conditions: Conditions, size: int) -> float:
    own = new_database(conditions.server, "statement_own")
    plain = new_database(conditions.server, "statement_plain")
    ours = _Prepared(own, statement("event_write_batch", "outbox"), batch)
    bare = _Prepared(plain, batch_statement(), batch_parameters)
    with ours.connection, bare.connection:
        times = range(_WARM + conditions.sizes.rounds * _A_ROUND // size)
        pairs = [(ours.seconds(size), bare.seconds(size)) for _ in times][_WARM:]
    return median_ratio([mine for mine, _ in pairs], [theirs for _, theirs in pairs])
