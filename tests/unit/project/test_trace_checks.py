"""The checks of a watched run would find a span that is missing, misplaced or at a wrong time."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from tests.support.telemetry.event_trace import checks

from dsql_outbox.cli.demo.span_tree import SpanView

MS, WRITE = 1_000_000, "outbox.write"


def span(name: str, parent: str | None, start: float, end: float, **more: object) -> SpanView:
    kinds = {"publish": "PRODUCER", "process": "CONSUMER"}
    attributes = {f"outbox.attempt.{key}": value for key, value in more.items() if key != "codes"}
    if more.get("codes"):
        attributes |= {"db.response.status_code": "40001", "outbox.attempt.oc_class": "OC000"}
    full = f"outbox.write.{name[:-1]}" if name.startswith("attempt") else name
    kind = kinds.get(name.partition(" ")[0], "INTERNAL")
    return SpanView(
        *("t", name, parent, full, kind),
        *(round(start * MS), round(end * MS), bool(more.get("codes")), attributes),
    )


NUMBER, WAITED = "outbox.attempt.number", "outbox.attempt.waited_s"
GOOD = {
    view.span_id: view
    for view in (
        span(WRITE, None, 0, 330),
        span("attempt1", WRITE, 0, 5, number=1, waited_s=0.0, outcome="conflict", codes=1),
        span("attempt2", WRITE, 106, 110, number=2, waited_s=0.1, outcome="conflict", codes=1),
        span("attempt3", WRITE, 320, 328, number=3, waited_s=0.2, outcome="committed"),
        span("outbox.wait", WRITE, 325, 400),
        span("publish x", WRITE, 401, 402),
        span("process x", "publish x", 403, 404),
    )
}  # fmt: skip


def missing(spans: dict[str, SpanView]) -> list[str]:
    return [check.text for check in checks(list(spans.values()), 2) if not check.held]


def test_a_good_trace_lacks_nothing() -> None:
    assert missing(GOOD) == []
    assert len(list(checks(list(GOOD.values()), 2))) == 12


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_span_is_found(name: str) -> None:
    assert missing({key: span for key, span in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("attempt2", lambda s: replace(s, parent_id="publish x")),
        ("process x", lambda s: replace(s, parent_id="outbox.write")),
        ("outbox.write", lambda s: replace(s, parent_id="another")),
        ("outbox.write", lambda s: replace(s, end_ns=300 * MS)),
        ("attempt1", lambda s: replace(s, failed=False)),
        ("attempt2", lambda s: replace(s, start_ns=90 * MS)),
        ("attempt3", lambda s: replace(s, attributes=s.attributes | {NUMBER: 2})),
        ("attempt3", lambda s: replace(s, attributes=s.attributes | {WAITED: 0.15})),
        ("outbox.wait", lambda s: replace(s, start_ns=10 * MS)),
        ("outbox.wait", lambda s: replace(s, end_ns=500 * MS)),
        ("process x", lambda s: replace(s, start_ns=300 * MS)),
        ("process x", lambda s: replace(s, end_ns=300 * MS)),
    ],
)  # fmt: skip
def test_a_wrong_parent_mark_or_time_is_found(
    name: str, change: Callable[[SpanView], SpanView]
) -> None:
    assert len(missing(GOOD | {name: change(GOOD[name])})) >= 1
