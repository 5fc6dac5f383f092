"""The table of span attributes: the code's names, the docs' rows and what is sent agree."""

import ast
import re
from uuid import UUID

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.checkout import ROOT

from dsql_outbox.observability import attributes
from dsql_outbox.observability.facts import (
    AttemptEnded,
    BatchEnded,
    DatabaseServer,
    Fact,
    PublishEnded,
    PublishStarted,
    WriteEnded,
    WriteExhausted,
    WriteStarted,
)
from dsql_outbox.observability.otel.spans import TraceFacts

EVENT = UUID(int=7)
SERVER = DatabaseServer("db.example", 5432, "postgres.outbox")
FAILED_WRITE: list[Fact] = [
    WriteStarted(EVENT, "Loan Created", "LoanCreated", "topic", 1, SERVER),
    AttemptEnded(
        EVENT, 2, 0.1, 1, 2, "conflict", "SerializationFailure", "40001", "OC000", ("Car/1",)
    ),
    WriteExhausted(EVENT, 1, "SerializationFailure", "40001"),
    WriteEnded(EVENT, "failed", 1, 1, "SerializationFailure"),
]
FAILED_BATCH = BatchEnded(2, 1, 2, "conflict", (), "SerializationFailure", "40001")
FAILED_PUBLISH: list[Fact] = [
    PublishStarted(EVENT, "topic", "nats", {}, 1, 1, 2, 845),
    PublishEnded(EVENT, "topic", "retry", "no answer", leads_to="retry"),
]


def every_constant() -> set[str]:
    return {value for name, value in vars(attributes).items() if name.isupper()}


def used_by(*things: list[Fact]) -> set[str]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    hook = TraceFacts(provider)
    hook(FAILED_BATCH)
    for first, *rest in things:
        scope = hook(first)
        assert scope is not None
        for fact in rest:
            scope(fact)
    return {name for span in exporter.get_finished_spans() for name in span.attributes or {}}


def test_the_spans_use_every_name_and_no_other() -> None:
    assert used_by(FAILED_WRITE, FAILED_PUBLISH) == every_constant()


def test_the_docs_have_a_row_for_every_attribute_and_no_other() -> None:
    text = (ROOT / "docs/reference/telemetry.md").read_text(encoding="utf-8")
    section = text.split("## Attributes", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE)

    assert sorted(rows) == sorted(every_constant())


def test_every_attribute_says_what_it_holds() -> None:
    body = ast.parse((ROOT / "observability/attributes.py").read_text(encoding="utf-8")).body
    said = [
        isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        for node, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign)
    ]

    assert said == [True] * len(every_constant())
