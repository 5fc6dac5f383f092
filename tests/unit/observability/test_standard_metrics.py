"""The metrics of OpenTelemetry's conventions: as the conventions define them, and beside ours."""

import re
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.metrics import db_metrics, messaging_metrics
from tests.support.checkout import ROOT

from dsql_outbox.observability import metric_names
from dsql_outbox.observability.facts import (
    CallEnded,
    CallStarted,
    DatabaseServer,
    PoolCounts,
    PublishResult,
    TransactionEnded,
)
from dsql_outbox.observability.otel.metrics import MetricFacts

STANDARD = [v for v in vars(metric_names).values() if isinstance(v, metric_names.Standard)]
EVENT = UUID(int=7)
MS = 1_000_000
SERVER = DatabaseServer("db.example", 5432, "postgres.outbox")
DATABASE = {
    "db.system.name": "postgresql",
    "db.namespace": "postgres.outbox",
    "server.address": "db.example",
    "server.port": 5432,
}
BROKER = {
    "messaging.system": "nats",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
    "server.address": "nats.example",
    "server.port": 4222,
}
POOL = "db.example:5432/postgres.outbox"


class Pool:
    """Connections of a writer."""

    def __init__(self, *counts: int) -> None:
        self._counts = PoolCounts(*counts)

    def counts(self) -> PoolCounts:
        return self._counts


def read(reader: InMemoryMetricReader) -> dict[str, Any]:
    """The metrics by name, without ours."""
    found = reader.get_metrics_data()
    assert found is not None
    return {
        metric.name: metric
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if not metric.name.startswith("outbox.")
    }


class Measured:
    """A hook with a provider of its own."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.hook = MetricFacts(self._provider)

    def metrics(self) -> dict[str, Any]:
        return read(self._reader)

    def points(self, name: str) -> list[Any]:
        return list(self.metrics()[name].data.data_points)

    def publish(
        self, result: PublishResult, *, topic: str = "events.A", queue: str = "", messages: int = 1
    ) -> None:
        place = (queue, "nats.example", 4222)
        started = CallStarted(topic, "nats", messages, 0, 0, MS, *place)
        for fact in (started, CallEnded(started, result, messages, 0.25)):
            assert self.hook(fact) is None

    def transaction(self, pool: Pool, error: str | None = None, code: str | None = None) -> None:
        self.hook(TransactionEnded(0, 4 * MS, SERVER, pool, error, code))


def as_defined(name: str) -> Any:
    """The metric as the conventions' own package makes it."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("conventions")
    create = f"create_{name.replace('.', '_')}"
    instrument: Any = getattr(messaging_metrics, create, None) or getattr(db_metrics, create)
    made = instrument(meter)
    getattr(made, "record", getattr(made, "add", None))(1)  # type: ignore[misc]
    return read(reader)[name]


@pytest.mark.parametrize("metric", STANDARD, ids=lambda metric: metric.name)
def test_kind_unit_and_description_are_the_conventions(metric: metric_names.Standard) -> None:
    measured, pool = Measured(), Pool(1, 2, 0, 10)
    measured.publish("delivered")
    measured.transaction(pool)
    ours, theirs = measured.metrics()[metric.name], as_defined(metric.name)
    assert (ours.unit, ours.description) == (theirs.unit, theirs.description)
    assert type(ours.data) is type(theirs.data)
    for trait in ("is_monotonic", "aggregation_temporality"):
        assert getattr(ours.data, trait, None) == getattr(theirs.data, trait, None)
    if metric.buckets:
        assert ours.data.data_points[0].explicit_bounds == metric.buckets


def test_a_transaction_is_one_operation_and_a_failed_one_has_its_error() -> None:
    measured, pool = Measured(), Pool(1, 0, 0, 10)
    measured.transaction(pool)
    measured.transaction(pool, "SerializationFailure", "40001")
    measured.transaction(pool, "OperationalError")
    failed = {"error.type": "SerializationFailure", "db.response.status_code": "40001"}
    found = [(dict(p.attributes), p.sum) for p in measured.points("db.client.operation.duration")]
    assert found == [
        (DATABASE, 0.004),
        (DATABASE | failed, 0.004),
        (DATABASE | {"error.type": "OperationalError"}, 0.004),
    ]


def test_a_send_is_counted_without_its_topic_and_with_the_queue_of_all() -> None:
    measured = Measured()
    for topic, messages in (("events.A", 41), ("events.B", 3)):
        measured.publish("delivered", topic=topic, messages=messages)
    measured.publish("rejected", queue="orders", messages=5)
    measured.publish("not_attempted")  # nothing was sent
    failed = {"messaging.destination.name": "orders", "error.type": "rejected"}
    sent = measured.points("messaging.client.sent.messages")
    assert [(dict(p.attributes), p.value) for p in sent] == [(BROKER, 44), (BROKER | failed, 5)]
    took = measured.points("messaging.client.operation.duration")
    assert [(dict(p.attributes), p.count) for p in took] == [(BROKER, 2), (BROKER | failed, 1)]


def test_the_connections_of_all_writers_are_counted_when_they_are_read() -> None:
    measured = Measured()
    pools = [Pool(1, 2, 5, 10), Pool(3, 1, 0, 4)]
    for pool in (*pools, *pools):
        measured.transaction(pool)
    name = {"db.client.connection.pool.name": POOL}
    states = [
        (name | {"db.client.connection.state": state}, count)
        for state, count in (("idle", 4), ("used", 3))
    ]
    seen = {
        metric.name: [(dict(p.attributes), p.value) for p in measured.points(metric.name)]
        for metric in STANDARD
        if metric.name.startswith("db.client.connection")
    }
    assert seen == {
        "db.client.connection.count": states,
        "db.client.connection.max": [(name, 14)],
        "db.client.connection.pending_requests": [(name, 5)],
    }
    del pool, pools[0]
    assert [p.value for p in measured.points("db.client.connection.max")] == [4]


def test_the_page_names_each_beside_ours() -> None:
    text = (ROOT / "docs/reference/telemetry.md").read_text(encoding="utf-8")
    section = text.split("## OpenTelemetry's names", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (?:`([a-z_.]+)`)? *\|", section, re.MULTILINE)
    assert rows == [(metric.name, metric.beside) for metric in STANDARD]
