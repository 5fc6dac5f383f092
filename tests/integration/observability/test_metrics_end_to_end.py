"""Metrics of real runs, read as Prometheus reads them: the values are what happened."""

import socket
import sys
from contextlib import ExitStack, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from threading import Barrier, BrokenBarrierError

import pytest
from tests.support.commands import Command, run
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.stand_ins import StandIn
from tests.support.telemetry.scrapes import base_url, get, samples
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.metering import measure
from dsql_outbox.outbox import Database, Entity, Event, MissingExtra
from dsql_outbox.testing import NatsServer
from dsql_outbox.writer import Writer
from dsql_outbox.writer.tuned_settings import TunedSettings


@pytest.fixture
def shards() -> int:
    return 2


@pytest.fixture
def url(outbox_url: str) -> str:
    return outbox_url


def event(name: str, n: int) -> Event:
    return Event.new(name, [Entity("Car", f"{name}-{n}")])


def named(found: dict[str, float], prefix: str) -> dict[str, float]:
    """The samples below a name that are not 0, without that name."""
    return {
        name.removeprefix(prefix): value
        for name, value in found.items()
        if name.startswith(prefix) and value
    }


def test_the_writers_metrics_are_what_its_writes_met(url: str) -> None:
    quick = TunedSettings(base=0.01, cap=0.02, max_retries=3)
    with exporting() as exports, OutboxProxy(url) as proxy, ExitStack() as stack:
        meters = measure(exports, "test", prometheus=True)
        writer = stack.enter_context(Writer(proxy.database, quick, hooks=meters.hooks))
        writer.write(workload_s.car_created())
        proxy.conflicts(2)
        retried = writer.write(workload_s.car_created())
        proxy.conflicts(4)
        with pytest.raises(Exception, match="OC000"):
            writer.write(workload_s.car_created())
        proxy.lost_commit()
        writer.write(workload_s.car_created())
        writer.write_many([workload_s.car_created() for _ in range(5)])
        assert meters.exposition is not None
        found = samples(meters.exposition())
    assert retried.conflicts == 2
    assert named(found, "outbox_write_calls_total") == {"{committed}": 8, "{failed}": 1}
    assert named(found, "outbox_write_attempts_failed_total") == {"{conflict}": 6, "{in_doubt}": 1}
    assert named(found, "outbox_write_conflicts_total") == {"{OC000}": 6}
    assert found["outbox_write_exhausted_total"] == 1
    assert found["outbox_write_duration_seconds_count{no}"] == 3, "one of five events"
    assert found["outbox_write_duration_seconds_count{yes}"] == 2
    assert 0.03 < found["outbox_write_waited_seconds_total"] < 1
    assert not any(name.startswith(("outbox_relay", "outbox_publish")) for name in found)


def test_the_relays_metrics_are_what_became_of_the_messages(
    url: str, nats_server: NatsServer
) -> None:
    setup = f"{nats_server.url}?stream=GOOD&subjects=events.Good"
    run("publish", "--database", url, "--sink", setup, "--until-empty")
    with writer_of_any_topic(Database(url)) as writer:
        writer.write_many([event("Good", n) for n in range(30)])
        writer.write(event("a b", 0))  # no subject of NATS: rejected
        writer.write(event("Unwanted", 0))  # no stream takes it: its topic is paused
    with Command(
        *("publish", "--database", url, "--sink", nats_server.url, "--listen", "127.0.0.1:0")
    ) as command:
        base = base_url(command)
        wait_until(partial(has_tried_twice, base), timeout=20)
        found = samples(get(f"{base}/metrics")[1])
    messages = named(found, "outbox_publish_messages_total")
    assert messages.pop("{unavailable}") >= 2
    assert messages == {"{delivered}": 30, "{rejected}": 1}
    assert found["outbox_publish_retries_total"] == 0, "the message is not at fault"
    assert found["outbox_relay_topics_paused"] == 1
    assert found["outbox_relay_subjects_held"] == 0
    assert found["outbox_relay_dead_letters_total"] == 1
    assert 1 <= found["outbox_publish_call_duration_seconds_count{delivered}"] <= 30
    assert found["outbox_publish_wait_duration_seconds_count"] >= 3, "one per call and topic"
    assert found["outbox_relay_rows_read_total"] >= 32
    assert found["outbox_relay_rows_delivered_total"] == 30
    assert found["outbox_relay_rows_deleted_total"] == 30
    assert found["outbox_relay_sink_available"] == 1
    assert found["outbox_backlog_age_seconds"] > 0
    assert not any(name.startswith("outbox_write") for name in found)


def has_tried_twice(base: str) -> bool:
    found = samples(get(f"{base}/metrics")[1])
    return found.get("outbox_publish_messages_total{unavailable}", 0) >= 2


class _Meeting(BaseHTTPRequestHandler):
    """Answers a request for spans and one for metrics when both have come."""

    server: "_Collector"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with suppress(BrokenBarrierError):
            self.server.both.wait(20)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Write nothing."""


class _Collector(StandIn):
    def __init__(self) -> None:
        super().__init__(_Meeting)
        self.both = Barrier(2)


def test_the_last_spans_and_metrics_are_sent_at_the_same_time(url: str) -> None:
    with Writer(Database(url)) as writer:
        writer.write(workload_s.car_created("CAR-1"))
    words = ("--sink", "stdout:", "--until-empty")
    with _Collector().serving() as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
        }
        done = run("publish", "--database", url, *words, env=env)

    assert done.code == 0
    assert "lost" not in done.err
    assert not collector.both.broken


def test_a_collector_that_is_away_costs_one_warning_for_spans_and_metrics(url: str) -> None:
    with Writer(Database(url)) as writer:
        writer.write(workload_s.car_created("CAR-1"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
    }
    words = ("--sink", "stdout:", "--until-empty")
    done = run("publish", "--database", url, *words, env=env)

    assert done.code == 0
    (warning,) = [line for line in done.err.splitlines() if "lost" in line]
    assert "spans and metrics are lost, check the OTLP endpoint" in warning


def test_nobody_asks_so_the_sdk_is_not_even_loaded() -> None:
    with exporting() as exports:
        meters = measure(exports, "test")
        assert meters.hooks == ()
        assert meters.exposition is None


@pytest.mark.parametrize(
    ("module", "extra", "endpoint"),
    [
        ("opentelemetry.exporter.prometheus", "prometheus", ""),
        ("opentelemetry.exporter.otlp.proto.http.metric_exporter", "otlp", "http://127.0.0.1:9"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, endpoint: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint)
    missing = rf"needs the extra \[{extra}\]: pip install "
    with exporting() as exports, pytest.raises(MissingExtra, match=missing):
        measure(exports, "test", prometheus=extra == "prometheus")
