"""Facts as metrics: what is counted, under which names, and that it costs nothing unasked."""

import re
from collections.abc import Iterator
from typing import Any, get_args
from uuid import UUID

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tests.support.checkout import ROOT

from dsql_outbox.observability import attributes, metric_names
from dsql_outbox.observability.facts import (
    AttemptEnded,
    AttemptOutcome,
    BacklogAge,
    BrokerProbed,
    CallEnded,
    CallStarted,
    Fact,
    LifeJobs,
    PublishEnded,
    PublishResult,
    PublishStarted,
    RelayProgress,
    ShardsChanged,
    StoredCall,
    StuckCounts,
    WriteEnded,
    WriteExhausted,
    WritesStored,
    WriteStatus,
)
from dsql_outbox.observability.metric_names import MOST_TYPES
from dsql_outbox.observability.otel.metrics import MetricFacts, metric_facts

EVENT = UUID(int=7)
MS = 1_000_000
ALL = [value for value in vars(metric_names).values() if isinstance(value, metric_names.Metric)]
PROGRESS = RelayProgress(
    read=5, delivered=3, deleted=2, failed=1, dead=1, held=2, paused=["a", "b"]
)

OUTAGE = RelayProgress(read=1, deleted=1, statements=2, sink_available=False)


class Measured:
    """A provider of its own, and what it has measured."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.hook = MetricFacts(self.provider)

    def tell(self, *facts: Fact) -> None:
        for fact in facts:
            self.hook(fact)

    def points(self) -> dict[tuple[str, str], Any]:
        """Ours, by name and the one attribute's value, or ""."""
        found = self._reader.get_metrics_data()
        return {
            (metric.name, "".join(map(str, (point.attributes or {}).values()))): point
            for resource in (found.resource_metrics if found else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if metric.name.startswith("outbox.")
        }

    def values(self) -> dict[tuple[str, str], float]:
        """The counters and gauges that are not 0."""
        points = self.points()
        return {key: p.value for key, p in points.items() if getattr(p, "value", 0)}


@pytest.fixture
def measured() -> Iterator[Measured]:
    measured = Measured()
    yield measured
    measured.provider.shutdown()


def call(measured: Measured, *results: tuple[PublishResult, int, float], retries: int = 0) -> None:
    """A call with these results, each with its number of messages and its seconds."""
    total = sum(number for _, number, _ in results)
    first = 100 * MS if total > retries else None
    started = CallStarted("topic", "nats", total, retries, first, 350 * MS)
    for fact in (started, *(CallEnded(started, *result) for result in results)):
        measured.tell(fact)


def everything(measured: Measured) -> None:
    for outcome in get_args(AttemptOutcome):
        touched = ("Car/1",) if outcome == "conflict" else ()
        measured.tell(AttemptEnded(EVENT, 1, 0.1, 0, MS, outcome, entities=touched))
    for status in get_args(WriteStatus):
        measured.tell(WriteEnded(EVENT, status, 1, 0), WriteExhausted(EVENT, 1, "E", None))
    for result in get_args(PublishResult):
        call(measured, (result, 2, 0.1), retries=1)
    for fact in (
        BacklogAge(7.5, 1, 60),
        StuckCounts(4, 2),
        LifeJobs(3, 18_240, 259_200.0),
        PROGRESS,
        OUTAGE,
        ShardsChanged([1, 2, 3], [3], []),
    ):
        measured.hook(fact)


def test_what_a_transaction_stored_is_counted_by_event_and_measured_once_per_call(
    measured: Measured,
) -> None:
    calls = [
        StoredCall(0.004, 0.0, has_conflicted=False),
        StoredCall(2.0, 0.5, has_conflicted=True),
    ]
    measured.tell(WritesStored(100, 0, 3 * MS, calls))
    assert measured.values() == {
        ("outbox.write.calls", "committed"): 100,
        ("outbox.write.waited", ""): 0.5,
    }
    points = measured.points()
    found = {key: (p.count, p.sum) for key, p in points.items() if hasattr(p, "sum")}
    assert found == {
        ("outbox.write.duration", "no"): (1, 0.004),
        ("outbox.write.duration", "yes"): (1, 2.0),
    }


def test_a_write_is_counted_by_failed_attempt_and_by_end(measured: Measured) -> None:
    measured.tell(
        AttemptEnded(EVENT, 1, 0.0, 0, 4 * MS, "conflict", "E", "40001", "OC000"),
        AttemptEnded(EVENT, 2, 0.1, 0, 4 * MS, "conflict", "E", "40001", "OC001"),
        AttemptEnded(EVENT, 3, 0.2, 0, 4 * MS, "conflict", "E", "40001"),
        AttemptEnded(EVENT, 4, 0.4, 0, 4 * MS, "committed"),
        WriteEnded(EVENT, "committed", 4, 3),
    )
    values = measured.values()
    assert values.pop(("outbox.write.waited", "")) == pytest.approx(0.7)
    assert values == {
        ("outbox.write.calls", "committed"): 1,
        ("outbox.write.attempts.failed", "conflict"): 3,
        ("outbox.write.conflicts", "OC000"): 1,
        ("outbox.write.conflicts", "OC001"): 1,
        ("outbox.write.conflicts", "other"): 1,
    }
    assert measured.points()["outbox.write.duration", "yes"].count == 1


def test_a_conflict_counts_once_for_each_type_that_it_touches(measured: Measured) -> None:
    for keys in (("Car/1", "Car/2", "Loan/a%2Fb"), ("Car/1",), ()):
        conflict = AttemptEnded(EVENT, 1, 0.0, 0, 1, "conflict", "E", "40001", entities=keys)
        measured.tell(conflict)
    name = "outbox.write.entity.conflicts"
    counts = {key: value for key, value in measured.values().items() if key[0] == name}
    assert counts == {(name, "Car"): 2, (name, "Loan"): 1}


def test_the_types_of_entities_make_a_bounded_number_of_series(measured: Measured) -> None:
    for n in range(MOST_TYPES + 3):
        measured.tell(
            AttemptEnded(EVENT, 1, 0.0, 0, 1, "conflict", "E", "40001", entities=(f"T{n}/1",)),
        )
    values = measured.values()
    assert values["outbox.write.entity.conflicts", "other"] == 3
    assert values["outbox.write.entity.conflicts", "T0"] == 1


def test_a_class_of_conflict_that_nobody_knows_makes_no_series_of_its_own(
    measured: Measured,
) -> None:
    measured.tell(AttemptEnded(EVENT, 1, 0.0, 0, 1, "conflict", "E", "40001", "OC999"))
    assert measured.values()["outbox.write.conflicts", "other"] == 1


def test_an_exhausted_write_and_one_in_doubt_are_told_apart(measured: Measured) -> None:
    measured.tell(WriteExhausted(EVENT, 4, "E", "40001"), WriteEnded(EVENT, "failed", 4, 4))
    measured.tell(AttemptEnded(EVENT, 1, 0.0, 0, 1, "in_doubt"), WriteEnded(EVENT, "unknown", 1, 0))
    assert measured.values() == {
        ("outbox.write.exhausted", ""): 1,
        ("outbox.write.calls", "failed"): 1,
        ("outbox.write.calls", "unknown"): 1,
        ("outbox.write.attempts.failed", "in_doubt"): 1,
    }


def test_messages_are_counted_by_result_and_durations_once_per_call(measured: Measured) -> None:
    call(measured, ("delivered", 490, 0.2), ("retry", 7, 0.4), ("unavailable", 3, 0.5), retries=20)
    call(measured, ("delivered", 7, 0.1), retries=7)
    assert measured.values() == {
        ("outbox.publish.messages", "delivered"): 497,
        ("outbox.publish.messages", "retry"): 7,
        ("outbox.publish.messages", "unavailable"): 3,
        ("outbox.publish.retries", ""): 27,
    }
    points = measured.points()
    took = {
        result: (points["outbox.publish.call.duration", result].count,
                 points["outbox.publish.call.duration", result].sum)
        for result in ("delivered", "retry", "unavailable")
    }  # fmt: skip
    assert took == {
        "delivered": (2, pytest.approx(0.3)), "retry": (1, 0.4), "unavailable": (1, 0.5)
    }  # fmt: skip
    wait = points["outbox.publish.wait.duration", ""]
    assert (wait.count, wait.sum) == (1, pytest.approx(0.25)), "a call of retries has no wait"


def test_a_database_whose_clock_is_ahead_makes_no_negative_wait(measured: Measured) -> None:
    measured.tell(CallStarted("topic", "nats", 1, 0, 350 * MS, 100 * MS))
    wait = measured.points()["outbox.publish.wait.duration", ""]
    assert (wait.count, wait.sum) == (1, 0)


def test_single_messages_are_not_measured(measured: Measured) -> None:
    assert measured.hook.takes_calls()
    started = PublishStarted(EVENT, "topic", "nats", {}, 1, 100 * MS, 350 * MS, 10)
    assert measured.hook(started) is None
    assert measured.hook(PublishEnded(EVENT, "topic", "retry", "no answer")) is None
    assert measured.values() == {}


def test_progress_is_added_up_and_the_newest_state_shows(measured: Measured) -> None:
    measured.hook(PROGRESS)
    state = {
        ("outbox.relay.subjects.held", ""): 2,
        ("outbox.relay.topics.paused", ""): 2,
        ("outbox.relay.sink.available", ""): 1,
    }
    assert state.items() <= measured.values().items()
    measured.hook(OUTAGE)
    points = measured.points()
    assert {key: point.value for key, point in points.items() if point.value} == {
        ("outbox.relay.rows.read", ""): 6,
        ("outbox.relay.rows.delivered", ""): 3,
        ("outbox.relay.rows.deleted", ""): 3,
        ("outbox.relay.statements", ""): 2,
        ("outbox.relay.dead_letters", ""): 1,
    }
    assert {points[key].value for key in state} == {0}


def test_a_broker_is_available_if_relay_and_probe_reach_it(measured: Measured) -> None:
    seen = []
    for fact in (PROGRESS, BrokerProbed(False), PROGRESS, BrokerProbed(True), OUTAGE, PROGRESS):
        measured.hook(fact)
        seen.append(measured.points()["outbox.relay.sink.available", ""].value)
    assert seen == [1, 0, 0, 1, 0, 1]


def test_shards_and_the_backlog_are_measured(measured: Measured) -> None:
    measured.hook(ShardsChanged(owned=[1, 2, 3], gained=[2, 3], lost=[]))
    measured.hook(ShardsChanged(owned=[1], gained=[], lost=[2, 3]))
    measured.hook(BacklogAge(12.5, 3, 60.0))
    measured.hook(StuckCounts(dead_letters=4, failures=2))
    measured.hook(LifeJobs(erased=3, forgotten=9, forgotten_s=None))
    assert measured.values() == {
        ("outbox.relay.shards.owned", ""): 1,
        ("outbox.relay.shards.changes", "gained"): 2,
        ("outbox.relay.shards.changes", "lost"): 2,
        ("outbox.backlog.age", ""): 12.5,
        ("outbox.dead_letters", ""): 4,
        ("outbox.failures", ""): 2,
        ("outbox.events.forgotten", ""): 9,
        ("outbox.events.erased", ""): 3,
    }


def test_what_never_happened_is_zero_and_not_missing(measured: Measured) -> None:
    measured.tell(WriteEnded(EVENT, "committed", 1, 0))
    points = measured.points()
    assert points["outbox.write.conflicts", "OC001"].value == 0
    assert points["outbox.write.exhausted", ""].value == 0
    assert not any(name.startswith("outbox.relay") for name, _ in points), "a writer is no relay"


def test_no_series_is_outside_the_table(measured: Measured) -> None:
    everything(measured)
    found = measured.points()
    allowed = {(m.name, value) for m in ALL for value in m.values or ["Car", ""]}
    assert set(found) <= allowed
    assert {name for name, _ in found} == {metric.name for metric in ALL}


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        (attributes.WRITE_STATUS, WriteStatus),
        (attributes.PUBLISH_RESULT, PublishResult),
    ],
)
def test_the_values_of_an_attribute_are_those_of_the_fact(attribute: str, words: object) -> None:
    found = [metric.values for metric in ALL if metric.attribute == attribute]
    assert found
    assert set(found) == {get_args(words)}


def test_the_docs_have_a_row_for_every_metric_and_no_other(measured: Measured) -> None:
    everything(measured)
    text = (ROOT / "docs/reference/telemetry.md").read_text(encoding="utf-8")
    section = text.split("## Metrics", 1)[1].split("\n## ", 1)[0]
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in re.findall(r"^\| `.*$", section, re.MULTILINE)
    ]
    points = measured.points()
    kinds = {name: kind_of(point, name) for (name, _), point in points.items()}
    assert rows == [
        (
            f"`{metric.name}`",
            kinds[metric.name],
            metric.unit.strip("{}"),
            ": ".join(filter(None, (named(metric.attribute), ", ".join(metric.values)))),
        )
        for metric in ALL
    ]


def named(attribute: str) -> str:
    return f"`{attribute}`" if attribute else ""


def kind_of(point: Any, name: str) -> str:
    if hasattr(point, "bucket_counts"):
        return "histogram"
    gauges = (
        "outbox.dead_letters",
        ".failures",
        ".age",
        ".held",
        ".paused",
        ".available",
        ".owned",
        ".forgotten",
        ".erased",
    )
    return "gauge" if name.endswith(gauges) else "counter"


def test_the_docs_say_how_many_series_there_are() -> None:
    histograms = [metric for metric in ALL if "duration" in metric.name]
    series = {True: 0, False: 0}
    for metric in ALL:
        series[metric in histograms] += len(metric.values) or not metric.attribute
    text = (ROOT / "docs/reference/telemetry.md").read_text(encoding="utf-8")
    numbers = re.search(
        r"at most (\d+) series of counters and gauges and (\d+) of histograms", text
    )
    assert numbers is not None
    assert numbers.groups() == (str(series[False]), str(series[True]))


def test_without_a_provider_nothing_is_opened() -> None:
    metric_facts(WriteEnded(EVENT, "committed", 1, 0))
    assert "_meter" not in vars(metric_facts)


def test_a_write_looks_once_for_somebody_who_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    found = metrics.get_meter_provider

    def counted() -> object:
        looks.append(None)
        return found()

    monkeypatch.setattr(metrics, "get_meter_provider", counted)
    hook = MetricFacts()
    for fact in (
        AttemptEnded(EVENT, 1, 0.0, 0, 1, "committed"),
        WriteEnded(EVENT, "committed", 1, 0),
    ):
        hook(fact)
    assert len(looks) == 1
