"""The end of what a command exports: one deadline, and one warning for all that is lost."""

import json
from io import StringIO
from threading import Event

import pytest
from opentelemetry.sdk.metrics import Counter
from opentelemetry.sdk.metrics.export import AggregationTemporality, ConsoleMetricExporter

from dsql_outbox.cli.telemetry import exports as module
from dsql_outbox.cli.telemetry.exports import Exports, exporting
from dsql_outbox.cli.telemetry.otel_environment import refuse_grpc
from dsql_outbox.cli.telemetry.sdk_metrics import export_metrics
from dsql_outbox.outbox import SettingsError


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_loss_is_logged_once_and_again_for_another_kind_if_the_collector_was_reached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exports = Exports()
    exports.lose("metrics", "refused")
    exports.arrived()
    exports.lose("metrics", "refused")
    exports.lose("spans", "refused")

    assert warnings(caplog) == [
        "metrics are lost, check the OTLP endpoint: refused",
        "spans are lost, check the OTLP endpoint: refused",
    ]


def test_a_collector_out_of_reach_is_logged_once_for_all_kinds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with exporting() as exports:
        exports.add("metrics", lambda: exports.lose("metrics", "refused"))
        exports.lose("spans", "refused")

    assert warnings(caplog) == ["spans are lost, check the OTLP endpoint: refused"]
    assert exports.lost == ["refused"]


def test_exporters_that_do_not_end_cost_one_wait_and_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    over = Event()
    with exporting() as exports:
        exports.add("spans", over.wait)
        exports.add("metrics", over.wait)
        exports.add("metrics", over.wait)
    over.set()

    assert warnings(caplog) == [
        "spans and metrics are lost, check the OTLP endpoint: they could not be sent within 0.01 s"
    ]


def test_an_exporter_gets_the_temporality_that_it_prefers() -> None:
    out = StringIO()
    deltas = {Counter: AggregationTemporality.DELTA}
    exporter = ConsoleMetricExporter(out, preferred_temporality=deltas)  # type: ignore[arg-type]
    with exporting() as exports:
        provider, _ = export_metrics(exports, "service", [exporter], prometheus=False)
        provider.get_meter("tests").create_counter("counted").add(1)
    (resource,) = json.loads(out.getvalue())["resource_metrics"]
    (metric,) = resource["scope_metrics"][0]["metrics"]
    assert metric["data"]["aggregation_temporality"] == AggregationTemporality.DELTA


def test_the_protocol_of_a_signal_overrides_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    refuse_grpc("TRACES")
    with pytest.raises(SettingsError, match="grpc"):
        refuse_grpc("METRICS")
