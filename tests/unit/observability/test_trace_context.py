"""Which span is current, what is handed on, and what unsampled or unset tracing costs."""

import subprocess
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

from dsql_outbox.observability.facts import AttemptEnded, PublishStarted, WriteEnded, WriteStarted
from dsql_outbox.observability.hooks import Hook, Scope
from dsql_outbox.observability.otel.spans import TraceFacts
from dsql_outbox.observability.recording import Recording

INCOMING = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Recorder:
    """A hook on a provider of its own, and the spans it made."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.caller = provider.get_tracer("caller")
        self.hook = TraceFacts(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def begin_write(hook: Hook, event_id: UUID | None = None) -> Scope:
    scope = hook(WriteStarted(event_id or uuid4(), "Loan Created", "LoanCreated", "topic", 1))
    assert scope is not None
    return scope


def begin_publish(hook: Hook, traceparent: str) -> Scope:
    carrier = {"traceparent": traceparent}
    scope = hook(PublishStarted(uuid4(), "topic", "nats", carrier, 1, 1, 2, 845))
    assert scope is not None
    return scope


def write(hook: Hook) -> str:
    """A write of two attempts; returns its traceparent."""
    event_id = uuid4()
    with (scope := begin_write(hook, event_id)):
        scope(AttemptEnded(event_id, 1, 0.0, 1, 2, "conflict", "SerializationFailure", "40001"))
        scope(AttemptEnded(event_id, 2, 0.1, 3, 4, "committed"))
        scope(WriteEnded(event_id, "committed", 2, 1))
    return scope.carrier["traceparent"]


@contextmanager
def incoming(**changes: Any) -> Generator[None]:
    """As in a server that took `INCOMING` from a request."""
    _, trace_id, span_id, _ = INCOMING.split("-")
    found = trace.SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        **changes,
    )
    with trace.use_span(trace.NonRecordingSpan(found)):
        yield


def traceparent(span: ReadableSpan) -> str:
    found: trace.SpanContext | None = span.get_span_context()
    assert found is not None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return span.parent is not None and f"{span.parent.span_id:016x}" in traceparent(parent)


def ids_of_parents(spans: list[ReadableSpan]) -> Iterator[str]:
    return (f"{span.parent.span_id:016x}" for span in spans if span.parent)


def test_a_write_is_current_inside_its_scope_and_a_child_of_what_was_current_before(
    recorder: Recorder,
) -> None:
    tracer = recorder.caller
    with tracer.start_as_current_span("request"):
        with begin_write(recorder.hook):
            tracer.start_span("inside").end()
        tracer.start_span("after").end()

    request, write = recorder.one("request"), recorder.one("outbox.write")
    assert is_child(write, request)
    assert is_child(recorder.one("inside"), write)
    assert is_child(recorder.one("after"), request)


def test_an_attempt_told_outside_the_scope_is_a_child_of_its_write(recorder: Recorder) -> None:
    scope = begin_write(recorder.hook)
    with recorder.caller.start_as_current_span("another"):
        scope(AttemptEnded(uuid4(), 1, 0.0, 1, 2, "committed"))
    scope(WriteEnded(uuid4(), "committed", 1, 0))

    assert is_child(recorder.one("outbox.write.attempt"), recorder.one("outbox.write"))


def test_a_tracestate_travels_and_baggage_does_not(recorder: Recorder) -> None:
    token = context.attach(baggage.set_baggage("customer", "secret"))
    try:
        with incoming(trace_state=trace.TraceState([("vendor", "1")])):
            scope = begin_write(recorder.hook)
    finally:
        context.detach(token)

    assert dict(scope.carrier) == {
        "traceparent": scope.carrier["traceparent"],
        "tracestate": "vendor=1",
    }


class Dropping(Sampler):
    """Drops every span and counts how many were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        self.asked += 1
        return ALWAYS_OFF.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "Dropping"


def test_an_unsampled_write_makes_no_other_span_and_hands_its_decision_on() -> None:
    sampler = Dropping()
    hook = TraceFacts(TracerProvider(sampler=sampler, shutdown_on_exit=False))

    written = write(hook)
    published = begin_publish(hook, written).carrier["traceparent"]

    assert sampler.asked == 2, "one for the write, one for the publish, none for attempt or wait"
    assert int(written[-2:], 16) & trace.TraceFlags.SAMPLED == 0
    assert published.split("-")[1] == written.split("-")[1]


def test_without_an_sdk_an_incoming_trace_passes_through() -> None:
    hook = TraceFacts(trace.NoOpTracerProvider())

    with incoming():
        written = write(hook)

    assert written == INCOMING
    carrier = {"traceparent": written}
    published = hook(PublishStarted(uuid4(), "topic", "nats", carrier, 1, 1, 2, 845))
    assert published is None, "nothing replaces what the message brings along"


def test_without_an_sdk_and_a_trace_nothing_is_sent_along() -> None:
    hook = TraceFacts(trace.NoOpTracerProvider())
    assert hook(WriteStarted(uuid4(), "Loan Created", "LoanCreated", "topic", 1)) is None


def test_writes_in_many_threads_keep_their_own_attempts(recorder: Recorder) -> None:
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(write, recorder.hook) for _ in range(400)]
    written = sorted(write.result() for write in running)

    assert sorted(traceparent(span) for span in recorder.named("outbox.write")) == written
    attempts = recorder.named("outbox.write.attempt") + recorder.named("outbox.write.attempt 2")
    assert sorted(ids_of_parents(attempts)) == sorted(2 * [text.split("-")[2] for text in written])


@pytest.mark.anyio
async def test_writes_in_many_tasks_at_once_are_each_current_in_their_own(
    recorder: Recorder,
) -> None:
    all_entered = anyio.Event()

    async def write_slowly(event_id: UUID) -> None:
        with begin_write(recorder.hook, event_id):
            await all_entered.wait()
            recorder.caller.start_span(str(event_id)).end()

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(write_slowly, uuid4())
        await anyio.wait_all_tasks_blocked()
        all_entered.set()

    writes = recorder.named("outbox.write")
    assert len(writes) == 20
    for span in writes:
        event_id = dict(span.attributes or {})["outbox.event.id"]
        assert is_child(recorder.one(str(event_id)), span)


LATE_PROVIDER = """
import sys
from uuid import UUID
from dsql_outbox.observability.facts import WriteStarted
from dsql_outbox.observability.otel.spans import trace_facts
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]

fact = WriteStarted(UUID(int=1), "n", "t", "topic", 1)
assert trace_facts(fact) is None  # nobody records, nothing to pass on

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
assert "traceparent" in trace_facts(fact).carrier
"""


def test_a_global_provider_set_after_the_first_write_is_used_and_the_sdk_never_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE_PROVIDER], check=False, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_write_is_skipped_unless_something_records_or_a_context_is_to_be_passed_on(
    recorder: Recorder,
) -> None:
    hook = TraceFacts()
    hook._is_live = Recording(lambda: False, is_live=False)
    assert hook.skips_successes()
    with incoming():
        assert not hook.skips_successes()
        assert begin_write(hook).carrier["traceparent"] == INCOMING
    assert not recorder.hook.skips_successes()
