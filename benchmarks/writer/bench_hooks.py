"""`python -m benchmarks.writer.bench_hooks`: measure what the hooks cost per write, without I/O."""

import sys
from collections.abc import Sequence
from time import thread_time
from uuid import uuid4

from benchmarks.measure import Target
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dsql_outbox.observability import (
    AttemptEnded,
    DatabaseServer,
    Hook,
    MetricFacts,
    Scopes,
    TraceFacts,
    TransactionStarted,
    WriteEnded,
    WriteStarted,
    emit,
    log_facts,
    metric_facts,
    trace_facts,
)

_EVENT = uuid4()
_SERVER = DatabaseServer("localhost", 5432, "postgres.outbox")
_TIMES, _ROUNDS = 5_000, 9
_A_BATCH = 256  # writes whose spans an exporter sends together


class _Discarding(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


def write(hooks: Sequence[Hook]) -> None:
    """Emit all facts of a write that commits at the first attempt."""
    started = WriteStarted(_EVENT, "Car Moved", "CarMoved", "events.CarMoved", 1, _SERVER)
    scopes = Scopes(hooks, started)
    _ = scopes.carrier
    with scopes:
        emit(hooks, TransactionStarted(1))
        scopes(AttemptEnded(_EVENT, 1, 0.0, 1, 2, "committed"))
        scopes(WriteEnded(_EVENT, "committed", 1, 0))


def microseconds(*hooks: Hook) -> float:
    """The CPU time per write in microseconds: the average of the fastest round."""
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        began = thread_time()
        for _ in range(_TIMES):
            write(hooks)
        rounds.append((thread_time() - began) / _TIMES * 1e6)
    return min(rounds)


def encoding() -> float:
    """The CPU time to encode the spans of a write for OTLP, in microseconds."""
    memory = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(memory))
    for _ in range(_A_BATCH):
        write([TraceFacts(tracers)])
    spans = memory.get_finished_spans()
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        began = thread_time()
        encode_spans(spans).SerializeToString()
        rounds.append((thread_time() - began) / _A_BATCH * 1e6)
    return min(rounds)


def main() -> int:
    idle = microseconds(log_facts, trace_facts, metric_facts)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(_Discarding()))
    traced = microseconds(log_facts, TraceFacts(tracers))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    measured = microseconds(log_facts, MetricFacts(meters))
    tracers.shutdown()
    meters.shutdown()
    target = Target("no SDK, a write", idle, 5, most=True, unit=" us")
    print(target, f"{'spans by the SDK, a write':<58} {traced:8.2f} us", sep="\n")
    print(f"{'encoding those spans for OTLP, in another thread':<58} {encoding():8.2f} us")
    print(f"{'metrics by the SDK, a write':<58} {measured:8.2f} us")
    return 0 if target.holds else 1


if __name__ == "__main__":
    sys.exit(main())
