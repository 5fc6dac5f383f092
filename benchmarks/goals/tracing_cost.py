"""The cost of a write's spans for its caller, while a thread encodes them."""

import statistics
from collections.abc import Sequence
from time import perf_counter

from benchmarks.relay.rows import new_database
from benchmarks.sample_event import sample_events
from benchmarks.telemetry import Encoded, traced

from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer

from .conditions import Conditions

_A_TURN = 1_000
"""Writes in a row with spans, or without; their spans fill several batches of the exporter."""

_TURNS = 2  # pairs of turns in a round


def tracing(conditions: Conditions) -> list[float]:
    """The p99 of a write with spans over that of one without."""
    url = new_database(conditions.server, "tracing")
    with (
        traced(Encoded()) as (provider, hook),
        Writer(Database(url)) as bare,
        Writer(Database(url), hooks=[hook]) as spanned,
    ):
        with_spans: list[float] = []
        without: list[float] = []
        for n in range(_TURNS * conditions.sizes.rounds):
            with_spans += _turn(spanned, 2 * n)
            provider.force_flush()  # so that no thread works while the other writer is timed
            without += _turn(bare, 2 * n + 1)
    return [_p99(with_spans) / _p99(without)]


def _turn(writer: Writer, number: int) -> list[float]:
    """The seconds of each write of a turn."""
    return [_seconds(writer, event) for event in sample_events(number * _A_TURN, _A_TURN)]


def _seconds(writer: Writer, event: bytes) -> float:
    began = perf_counter()
    writer.write(event)
    return perf_counter() - began


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[-1]
