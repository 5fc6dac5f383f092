"""What the spans of a write cost: time at the 99th percentile, and CPU with their export."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, process_time
from typing import NamedTuple

from benchmarks.relay.rows import new_database
from benchmarks.sample_event import sample_events
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from dsql_outbox.observability import TraceFacts
from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer

from .conditions import Conditions

_A_TURN = 250
"""Writes in a row with spans, or without."""

_TURNS = 8  # pairs of turns in a round


class _Turn(NamedTuple):
    """The seconds of each write, and the CPU of all in seconds."""

    seconds: Sequence[float]
    cpu: float


class _Encoded(SpanExporter):
    """Encodes spans as the OTLP exporter does, and sends them nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


def tracing(conditions: Conditions) -> list[float]:
    """The p99 of a write with spans over one without, and the CPU of its spans in us."""
    url = new_database(conditions.server, "tracing")
    turns = _TURNS * conditions.sizes.rounds
    with (
        _traced() as (provider, hook),
        Writer(Database(url)) as bare,
        Writer(Database(url), hooks=[hook]) as traced,
    ):
        _turn(bare, 0)
        _turn(traced, 1)  # both connect, and prepare the statements
        pairs = [
            (_turn(traced, 2 * n, provider), _turn(bare, 2 * n + 1)) for n in range(1, turns + 1)
        ]
    with_spans, without = zip(*pairs, strict=True)
    cpu = [(mine.cpu - theirs.cpu) / _A_TURN * 1e6 for mine, theirs in pairs]
    return [_p99(with_spans) / _p99(without), statistics.median(cpu)]


@contextmanager
def _traced() -> Iterator[tuple[TracerProvider, TraceFacts]]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Encoded()))
    yield provider, TraceFacts(provider)
    provider.shutdown()


def _turn(writer: Writer, number: int, provider: TracerProvider | None = None) -> _Turn:
    seconds: list[float] = []
    began = process_time()
    for event in sample_events(number * _A_TURN, _A_TURN):
        start = perf_counter()
        writer.write(event)
        seconds.append(perf_counter() - start)
    if provider is not None:
        provider.force_flush()
    return _Turn(seconds, process_time() - began)


def _p99(turns: Sequence[_Turn]) -> float:
    return statistics.quantiles([each for turn in turns for each in turn.seconds], n=100)[-1]
