"""The checks of `make real-telemetry` would find a trace that is wrong. No server is started."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest
from benchmarks.real_telemetry.trace_checks import (
    COMMON,
    DrawnSpan,
    JaegerTrace,
    drawn_in_order,
    moved_spans,
)
from msgspec.structs import replace

from dsql_outbox.cli.demo.span_tree import SpanView
from dsql_outbox.observability import attributes as names

EVENT = UUID(int=7)
SERVER = {names.DB_NAMESPACE: "d.outbox", names.SERVER_ADDRESS: "h", names.SERVER_PORT: 5432}


def span(span_id: str, kind: str, start: int, **more: Mapping[str, object]) -> SpanView:
    parent = None if span_id == "outbox.write" else "outbox.write"
    attributes = {names.EVENT_ID: str(EVENT), **more.get("attributes", {})}
    return SpanView("t", span_id, parent, span_id, kind, start, start + 1, attributes=attributes)


WRITE = span("outbox.write", "INTERNAL", 0)
ATTEMPT = span("attempt", "CLIENT", 1, attributes={names.ATTEMPT_NUMBER: 1, **SERVER})
PUBLISH = span("publish", "PRODUCER", 5)


def wrong(*spans: SpanView) -> list[str]:
    trace = trace_of(spans)
    return [what for what, check in COMMON.items() if check(trace)]


def trace_of(raw: Sequence[SpanView], adjusted: Sequence[SpanView] = ()) -> JaegerTrace:
    return JaegerTrace("test", EVENT, raw, adjusted, ())


def test_a_good_trace_has_nothing_wrong() -> None:
    assert wrong(WRITE, ATTEMPT, PUBLISH) == []


@pytest.mark.parametrize(
    ("what", "attempt", "publish"),
    [
        ("every span names the event", ATTEMPT, replace(PUBLISH, attributes={})),
        ("every span is a child of the write", ATTEMPT, replace(PUBLISH, parent_id="attempt")),
        ("no publish begins before the commit", ATTEMPT, replace(PUBLISH, start_ns=0)),
        (
            "each attempt names its server",
            span("attempt", "CLIENT", 1, attributes={names.ATTEMPT_NUMBER: 1}),
            PUBLISH,
        ),
    ],
)
def test_a_wrong_trace_is_found(what: str, attempt: SpanView, publish: SpanView) -> None:
    assert wrong(WRITE, attempt, publish) == [what]


def test_a_span_that_jaeger_moved_is_found() -> None:
    moved = trace_of([WRITE, PUBLISH], [WRITE, replace(PUBLISH, start_ns=0)])
    left = trace_of([WRITE, PUBLISH], [WRITE, PUBLISH])
    assert [moved_spans(moved, wanted=wanted)[1] for wanted in (True, False)] == [True, False]
    assert [moved_spans(left, wanted=wanted)[1] for wanted in (True, False)] == [False, True]


@pytest.mark.parametrize(
    ("start", "warnings", "is_good"),
    [(20, None, True), (20, [], True), (11, None, False), (20, ["clock skew"], False)],
)
def test_a_publish_that_the_page_draws_early_is_found(
    start: int, warnings: list[str] | None, *, is_good: bool
) -> None:
    drawn = [DrawnSpan("attempt", "outbox.write.attempt", 10, 5)]
    drawn.append(DrawnSpan("publish", "publish events", start, 5, warnings))
    trace = trace_of([WRITE, ATTEMPT, PUBLISH])
    assert drawn_in_order(trace._replace(drawn=drawn))[1] is is_good
    assert not drawn_in_order(trace)[1], "nothing was drawn"
