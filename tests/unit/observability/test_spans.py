"""Facts become spans: names, parents, times, states, and what is sent along."""

import logging
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.support.telemetry.retries import retry

from dsql_outbox.observability.facts import (
    AttemptEnded,
    BatchedWrite,
    BatchEnded,
    DatabaseServer,
    PublishEnded,
    PublishStarted,
    RelayProgress,
    WriteEnded,
    WriteExhausted,
    WriteStarted,
)
from dsql_outbox.observability.hooks import Scope
from dsql_outbox.observability.otel.spans import TraceFacts

EVENT = UUID("0198a3c0-0000-7000-8000-000000000001")
ATTEMPT = "outbox.write.attempt"
T0 = 1_700_000_000_000_000_000
MS = 1_000_000

SERVER = DatabaseServer("db.example", 5433, "loans.outbox")
STARTED = WriteStarted(EVENT, "Loan Created", "LoanCreated", "events.LoanCreated", 2, SERVER)
AT_THE_DATABASE = {
    "outbox.event.id": str(EVENT),
    "db.system.name": "postgresql",
    "db.namespace": "loans.outbox",
    "server.address": "db.example",
    "server.port": 5433,
}
CONFLICT = AttemptEnded(
    *(EVENT, 1, 0.0, T0, T0 + 5 * MS, "conflict", "SerializationFailure", "40001", "OC000"),
    entities=("Account/4711", "Order/7"),
)
RETRY = retry(EVENT, 1, 0.104)
COMMITTED = AttemptEnded(EVENT, 2, 0.104, T0 + 109 * MS, T0 + 112 * MS, "committed")
ENDED = WriteEnded(EVENT, "committed", 2, 1)
DELIVERED = PublishEnded(EVENT, "events.LoanCreated", "delivered")


def publish_started(carrier: dict[str, str], **changes: Any) -> PublishStarted:
    committed, picked_up = T0 + 112 * MS, T0 + 150 * MS
    started = PublishStarted(
        EVENT, "events.LoanCreated", "nats", carrier, 1, committed, picked_up, 845
    )
    return replace(started, **changes)


class Recorder:
    """A hook on a provider of its own, and the spans it made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.hook = TraceFacts(self.provider)

    def begin(self, fact: WriteStarted | PublishStarted) -> Scope:
        scope = self.hook(fact)
        assert scope is not None
        return scope

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def write(self) -> dict[str, str]:
        """A write with one conflict; returns its carrier."""
        with (scope := self.begin(STARTED)):
            for fact in (CONFLICT, RETRY, COMMITTED, ENDED):
                scope(fact)
        return dict(scope.carrier)

    def publish(self, fact: PublishStarted, end: PublishEnded = DELIVERED) -> dict[str, str]:
        scope = self.begin(fact)
        scope(end)
        return dict(scope.carrier)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def ids(span: ReadableSpan) -> trace.SpanContext:
    found: trace.SpanContext | None = span.get_span_context()
    assert found is not None
    return found


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return (
        span.parent is not None
        and span.parent.span_id == ids(parent).span_id
        and ids(span).trace_id == ids(parent).trace_id
    )


def traceparent(span: ReadableSpan) -> str:
    return f"00-{ids(span).trace_id:032x}-{ids(span).span_id:016x}-{ids(span).trace_flags:02x}"


def attributes_of(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_each_attempt_is_a_child_of_its_write_with_its_own_times(recorder: Recorder) -> None:
    recorder.write()

    write = recorder.one("outbox.write")
    first, second = recorder.one("outbox.write.attempt"), recorder.one("outbox.write.attempt 2")
    assert is_child(first, write)
    assert is_child(second, write)
    assert (first.start_time, first.end_time) == (T0, T0 + 5 * MS)
    assert (second.start_time, second.end_time) == (T0 + 109 * MS, T0 + 112 * MS)
    assert (write.kind, first.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)


def test_a_conflict_is_an_error_with_its_sqlstate_and_class(recorder: Recorder) -> None:
    recorder.write()

    first, second = recorder.one("outbox.write.attempt"), recorder.one("outbox.write.attempt 2")
    assert first.status.status_code is StatusCode.ERROR
    assert attributes_of(first) == {
        **AT_THE_DATABASE,
        "db.response.status_code": "40001",
        "error.type": "SerializationFailure",
        "outbox.attempt.number": 1,
        "outbox.attempt.outcome": "conflict",
        "outbox.attempt.oc_class": "OC000",
        "outbox.attempt.entities": "Account/4711, Order/7",
    }
    assert second.status.status_code is StatusCode.UNSET
    assert attributes_of(second) == {
        **AT_THE_DATABASE,
        "outbox.attempt.number": 2,
        "outbox.attempt.waited_s": 0.104,
        "outbox.attempt.outcome": "committed",
    }


@pytest.mark.parametrize("outcome", ["conflict", "in_doubt", "failed"])
def test_an_attempt_that_stored_nothing_is_an_error(recorder: Recorder, outcome: str) -> None:
    recorder.begin(STARTED)(AttemptEnded(EVENT, 1, 0.0, T0, T0 + 1, outcome))  # type: ignore[arg-type]

    assert recorder.one("outbox.write.attempt").status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("outcome", ["committed", "resolved"])
def test_an_attempt_that_found_the_event_stored_is_no_error(
    recorder: Recorder, outcome: str
) -> None:
    recorder.begin(STARTED)(AttemptEnded(EVENT, 1, 0.0, T0, T0 + 1, outcome))  # type: ignore[arg-type]

    assert recorder.one("outbox.write.attempt").status.status_code is StatusCode.UNSET


def test_an_attempt_never_ends_before_it_starts_though_the_clock_was_set_back(
    recorder: Recorder,
) -> None:
    recorder.begin(STARTED)(AttemptEnded(EVENT, 1, 0.0, T0, T0 - MS, "committed"))

    attempt = recorder.one("outbox.write.attempt")
    assert (attempt.start_time, attempt.end_time) == (T0, T0)


def test_a_write_says_what_was_written_and_how_it_ended(recorder: Recorder) -> None:
    recorder.write()

    write = recorder.one("outbox.write")
    assert write.status.status_code is StatusCode.UNSET
    assert attributes_of(write) == {
        "outbox.event.id": str(EVENT),
        "outbox.event.name": "Loan Created",
        "outbox.event.type": "LoanCreated",
        "outbox.event.entities": 2,
        "outbox.topic": "events.LoanCreated",
        "outbox.write.status": "committed",
        "outbox.write.attempts": 2,
        "outbox.write.conflicts": 1,
    }


@pytest.mark.parametrize("status", ["failed", "unknown"])
def test_a_write_that_failed_or_is_unknown_is_an_error(recorder: Recorder, status: str) -> None:
    recorder.begin(STARTED)(WriteEnded(EVENT, status, 1, 0, "SomeError"))  # type: ignore[arg-type]

    write = recorder.one("outbox.write")
    assert write.status.status_code is StatusCode.ERROR
    assert attributes_of(write)["error.type"] == "SomeError"


def test_a_write_whose_retries_ran_out_says_so(recorder: Recorder) -> None:
    scope = recorder.begin(STARTED)
    scope(WriteExhausted(EVENT, 4, "SerializationFailure", "40001"))
    scope(WriteEnded(EVENT, "failed", 4, 4, "SerializationFailure"))

    assert attributes_of(recorder.one("outbox.write"))["outbox.write.exhausted"] is True


def test_a_write_that_never_says_how_it_ended_ends_with_its_scope(recorder: Recorder) -> None:
    with pytest.raises(KeyError), recorder.begin(STARTED):
        raise KeyError

    write = recorder.one("outbox.write")
    assert write.status.status_code is StatusCode.ERROR
    assert attributes_of(write)["error.type"] == "KeyError"


def test_a_span_is_ended_once(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "opentelemetry"):
        recorder.write()

    recorder.one("outbox.write")
    assert caplog.records == []


def test_wait_and_publish_continue_the_writes_trace_from_the_carrier(recorder: Recorder) -> None:
    recorder.publish(publish_started(recorder.write()))

    write = recorder.one("outbox.write")
    wait, publish = recorder.one("outbox.wait"), recorder.one("publish events.LoanCreated")
    assert is_child(wait, write)
    assert is_child(publish, write)
    assert (wait.start_time, wait.end_time) == (T0 + 112 * MS, T0 + 150 * MS)
    assert attributes_of(wait) == {"outbox.event.id": str(EVENT)}
    assert publish.kind is SpanKind.PRODUCER
    assert attributes_of(publish) == {
        "outbox.event.id": str(EVENT),
        "messaging.system": "nats",
        "messaging.destination.name": "events.LoanCreated",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.message.id": str(EVENT),
        "messaging.message.body.size": 845,
        "outbox.topic": "events.LoanCreated",
        "outbox.publish.attempt": 1,
        "outbox.publish.result": "delivered",
    }


def test_a_consumer_continues_from_the_publish_not_from_the_write(recorder: Recorder) -> None:
    carrier = recorder.publish(publish_started(recorder.write()))

    assert carrier == {"traceparent": traceparent(recorder.one("publish events.LoanCreated"))}


def test_a_wait_never_ends_before_it_starts_though_the_databases_clock_is_ahead(
    recorder: Recorder,
) -> None:
    recorder.publish(publish_started(recorder.write(), committed_ns=T0, picked_up_ns=T0 - MS))

    wait = recorder.one("outbox.wait")
    assert (wait.start_time, wait.end_time) == (T0, T0)


def test_only_the_first_try_has_a_wait(recorder: Recorder) -> None:
    carrier = recorder.write()
    recorder.publish(publish_started(carrier, attempt=2))

    assert recorder.named("outbox.wait") == []
    assert attributes_of(recorder.one("publish events.LoanCreated"))["outbox.publish.attempt"] == 2


def test_a_row_without_a_trace_starts_one_whatever_the_publisher_is_doing(
    recorder: Recorder,
) -> None:
    with recorder.provider.get_tracer("publisher").start_as_current_span("relay"):
        carrier = recorder.publish(publish_started({}))

    publish = recorder.one("publish events.LoanCreated")
    assert publish.parent is None
    assert carrier == {"traceparent": traceparent(publish)}
    assert recorder.named("outbox.wait") == []


@pytest.mark.parametrize("result", ["retry", "rejected", "unavailable"])
def test_a_failed_publish_is_an_error_without_the_brokers_words(
    recorder: Recorder, result: str
) -> None:
    end = PublishEnded(EVENT, "events.LoanCreated", result, "words of the broker")  # type: ignore[arg-type]
    recorder.publish(publish_started({}), end)

    publish = recorder.one("publish events.LoanCreated")
    assert publish.status.status_code is StatusCode.ERROR
    assert attributes_of(publish)["outbox.publish.result"] == result
    assert attributes_of(publish)["error.type"] == result
    assert "words" not in publish.to_json()


@pytest.mark.parametrize("leads_to", ["retry", "dead_letter", "block"])
def test_a_failed_publish_says_what_it_led_to(recorder: Recorder, leads_to: str) -> None:
    end = PublishEnded(EVENT, "events.LoanCreated", "rejected", leads_to=leads_to)  # type: ignore[arg-type]
    recorder.publish(publish_started({}), end)

    publish = recorder.one("publish events.LoanCreated")
    assert attributes_of(publish)["outbox.publish.leads_to"] == leads_to
    assert publish.status.description == leads_to


@pytest.mark.parametrize(("number", "name"), [(9, "outbox.write.attempt 9"), (10, ATTEMPT)])
def test_the_names_of_attempts_are_few(recorder: Recorder, number: int, name: str) -> None:
    recorder.begin(STARTED)(AttemptEnded(EVENT, number, 0.1, T0, T0 + 1, "conflict"))

    assert recorder.spans[0].name == name


def test_a_batch_has_a_link_with_the_event_of_each_write(recorder: Recorder) -> None:
    other = UUID(int=9)
    writes = [BatchedWrite(EVENT, recorder.write()), BatchedWrite(other, {})]
    recorder.hook(BatchEnded(2, T0, T0 + MS, "committed", writes, server=SERVER))

    batch = recorder.one("outbox.batch")
    (link,) = batch.links
    assert link.context.span_id == ids(recorder.one("outbox.write")).span_id
    assert dict(link.attributes or {}) == {"outbox.event.id": str(EVENT)}
    assert attributes_of(batch)["server.address"] == "db.example"


def test_a_message_that_was_not_attempted_is_no_error(recorder: Recorder) -> None:
    end = PublishEnded(EVENT, "events.LoanCreated", "not_attempted")
    recorder.publish(publish_started({}), end)

    publish = recorder.one("publish events.LoanCreated")
    assert publish.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes_of(publish)


def test_a_fact_that_begins_nothing_opens_no_scope(recorder: Recorder) -> None:
    assert recorder.hook(RelayProgress(read=1, delivered=1)) is None
    assert recorder.hook(ENDED) is None
