"""One trace as lines of text."""

from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console
from tests.support.telemetry.received_spans import view_received

from dsql_outbox.cli.demo.report import show_page
from dsql_outbox.cli.demo.span_tree import SpanView, render_tree, view_recorded
from dsql_outbox.observability.facts import AttemptEnded, WriteEnded, WriteStarted
from dsql_outbox.observability.otel.spans import TraceFacts

MS = 1_000_000
T0 = 1_700_000_000_000_000_000


def view(
    span_id: str, name: str, start_ms: float, took_ms: float, *, failed: bool = False, **about: Any
) -> SpanView:
    start = T0 + round(start_ms * MS)
    end = start + round(took_ms * MS)
    parent = None if span_id == "write" else "write"
    attributes = {f"outbox.{name.replace('__', '.')}": value for name, value in about.items()}
    return SpanView("t", span_id, parent, name, "INTERNAL", start, end, failed, attributes)


def attempt(
    number: int, start_ms: float, took_ms: float, *, waited_s: float, oc_class: str | None = None
) -> SpanView:
    about = {
        "attempt__number": number,
        "attempt__waited_s": waited_s,
        "attempt__outcome": "conflict" if oc_class else "committed",
    }
    name, failed = "outbox.write.attempt", oc_class is not None
    made = view(f"a{number}", name, start_ms, took_ms, failed=failed, **about)
    if not oc_class:
        return made
    codes = {"db.response.status_code": "40001", "outbox.attempt.oc_class": oc_class}
    return replace(made, attributes={**made.attributes, **codes})


TRACE = [
    view("publish", "publish events.LoanCreated", 401, 2.2, publish__result="delivered"),
    attempt(3, 324, 5, waited_s=0.208),
    attempt(1, 1, 5.3, waited_s=0.0, oc_class="OC000"),
    attempt(2, 110.3, 6, waited_s=0.104, oc_class="OC001"),
    view("wait", "outbox.wait", 328, 72),
    view("write", "outbox.write", 0, 330, write__status="committed"),
]

GOLDEN = """\
span                                           start ms  took ms
outbox.write committed                              0.0    330.0  ━━━━━━━━━━━
├─ outbox.write.attempt 1 conflict 40001 OC000      1.0      5.3  ━
│  waited 104 ms                                                  ····
├─ outbox.write.attempt 2 conflict 40001 OC001    110.3      6.0      ━
│  waited 208 ms                                                      ·······
├─ outbox.write.attempt 3 committed               324.0      5.0             ━
├─ outbox.wait                                    328.0     72.0             ━━━
└─ publish events.LoanCreated delivered           401.0      2.2               ━
"""


def drawn(spans: list[SpanView], *, terminal: bool = False, width: int = 80) -> str:
    out = StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        no_color=False,
    )
    console.print(render_tree(spans, width=width))
    return out.getvalue()


def test_a_conflicted_write_and_its_delivery_as_a_tree() -> None:
    assert drawn(TRACE) == GOLDEN


def test_no_line_is_wider_than_the_width_asked_for() -> None:
    long = view("long", "publish " + "events.VeryLongEventType" * 9, 5, 1)

    for width in (40, 60, 80, 120):
        lines = drawn([*TRACE, long], width=width).splitlines()
        assert len(lines) == 10
        assert max(map(len, lines)) <= width


def test_on_a_terminal_conflicts_are_red_and_what_was_stored_is_green() -> None:
    lines = drawn(TRACE, terminal=True).splitlines()

    assert "\x1b[31moutbox.write.attempt 1 conflict" in lines[2]
    assert "\x1b[2mwaited 104 ms" in lines[3]
    assert "\x1b[32moutbox.write.attempt 3 committed" in lines[6]


def test_a_span_whose_parent_is_elsewhere_is_a_root_and_children_are_indented() -> None:
    write = replace(TRACE[-1], parent_id="in another service")
    below = replace(view("sql", "INSERT", 2, 1), parent_id="a1")

    lines = drawn([write, TRACE[2], below]).splitlines()

    assert [line[:24].rstrip() for line in lines[1:]] == [
        "outbox.write committed",
        "└─ outbox.write.attempt",
        "   └─ INSERT",
    ]


def test_spans_without_a_length_are_still_drawn() -> None:
    (_, line) = drawn([view("write", "outbox.write", 0, 0)]).splitlines()

    assert line.split() == ["outbox.write", "0.0", "0.0", "━"]


def test_recorded_and_received_spans_look_the_same() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    event_id = UUID(int=7)
    scope = TraceFacts(provider)(WriteStarted(event_id, "n", "t", "topic", 1))
    assert scope is not None
    scope(AttemptEnded(event_id, 1, 0.25, T0, T0 + MS, "conflict", "E", "40001", "OC000"))
    scope(WriteEnded(event_id, "failed", 1, 1, "E"))
    spans = exporter.get_finished_spans()

    recorded = view_recorded(spans)
    request = encode_spans(spans)
    received = view_received(
        span
        for resource in request.resource_spans
        for scope_spans in resource.scope_spans
        for span in scope_spans.spans
    )

    assert received == recorded
    tried, write = recorded
    assert (tried.parent_id, write.parent_id) == (write.span_id, None)
    assert (tried.kind, tried.failed) == ("CLIENT", True)
    assert (tried.start_ns, tried.end_ns) == (T0, T0 + MS)
    assert tried.attributes["outbox.attempt.waited_s"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("result", "leads_to", "shown"),
    [("retry", "retry", "publish t retry"), ("rejected", "block", "publish t rejected → block")],
)
def test_a_failed_publish_is_drawn_with_what_it_led_to(
    result: str, leads_to: str, shown: str
) -> None:
    attributes = {"outbox.publish.result": result, "outbox.publish.leads_to": leads_to}
    span = SpanView(
        "t", "s", None, "publish t", "PRODUCER", 0, 1, failed=True, attributes=attributes
    )

    (_, line) = render_tree([span]).plain.splitlines()
    assert line[:46].rstrip() == shown


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([], "In Jaeger: http://collector:16686/trace/t\n"),
        (["too late"], "No server accepted the spans at http://collector:4318: too late\n"),
    ],
)
def test_the_demo_says_where_its_trace_is_or_that_nobody_took_it(
    lost: list[str], said: str
) -> None:
    console = Console(width=40)
    span = SpanView("t", "s", None, "publish t", "PRODUCER", 0, 1)
    with console.capture() as captured:
        show_page(console, "http://collector:4318", [span], lost)
    assert captured.get() == said
