"""``dsql-outbox publish`` as supervisors see it: signals, probes, exit codes, log lines."""

import json
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from tests.support.brokers.slow_broker import SlowBroker
from tests.support.commands import Command, run
from tests.support.outbox_databases import KEEPER
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.telemetry.scrapes import base_url, get, get_json
from tests.support.waiting import wait_until
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.testing import NatsServer, OtlpReceiver

LISTEN = ("--listen", "127.0.0.1:0")

FINISHING = "finishing the work in progress\n"


@pytest.fixture
def broker(nats_server: NatsServer) -> Iterator[SlowBroker]:
    with SlowBroker(nats_server) as broker:
        yield broker


def write(url: str, *types: str) -> list[Event]:
    events = [Event.new(name, [Entity("Car", f"car-{name}")]) for name in types]
    with writer_of_any_topic(Database(url)) as writer:
        for event in events:
            writer.write(event)
    return events


def waiting(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM outbox.outbox").fetchone()
    return row[0] if row else 0


def publish(url: str, sink: str, *words: object, **env: str) -> Command:
    return Command("publish", "--database", url, "--sink", sink, *words, env=env)


def wait_for_its_end(command: Command) -> None:
    """Read its lines up to that of the first signal: a warning about the broker may come before."""
    while (line := command.error_line()) != FINISHING:
        assert line, "it ended without that line"


def is_ready(base: str) -> bool:
    return get(f"{base}/readyz")[0] == 200


def test_sigterm_while_messages_are_in_flight_delivers_them_first(
    url: str, broker: SlowBroker
) -> None:
    with broker.held(), publish(url, f"{broker.url}?stream=EVENTS") as command:
        write(url, "Moved")
        broker.arrived()
        command.signal(signal.SIGTERM)
        wait_for_its_end(command)
        broker.release()
        done = command.wait()
    assert (done.code, waiting(url)) == (0, 0)
    assert done.err == (
        "relayed 1, failed 0, dead 0\n"
        "waiting messages stay in the outbox; run the same command to continue\n"
    )


def test_a_drain_that_takes_too_long_ends_with_its_own_code_and_loses_nothing(
    url: str, broker: SlowBroker
) -> None:
    sink = f"{broker.url}?stream=EVENTS&timeout=60"
    with broker.held(), publish(url, sink, "--drain", 0.3, "--lease", 3) as command:
        write(url, "Moved")
        broker.arrived()
        asked = monotonic()
        command.signal(signal.SIGTERM)
        done = command.wait()
        took = monotonic() - asked
    assert done.code == 75
    assert 0.3 <= took < 5.0
    assert done.err.splitlines()[-1] == (
        "not done after 0.3 s: waiting messages stay in the outbox; "
        "run the same command to continue"
    )
    assert waiting(url) == 1
    assert run("publish", "--database", url, "--sink", broker.url, "--until-empty").code == 0


def test_a_database_that_does_not_answer_cannot_hold_up_the_end(url: str, tmp_path: Path) -> None:
    write(url, "Moved")
    with PostgresProxy(url) as proxy:
        held = proxy.hold(matching="DELETE FROM")
        with publish(proxy.url, f"jsonl:{tmp_path}/out", "--drain", 0.3, *LISTEN) as command:
            held.arrived(10)
            asked = monotonic()
            command.signal(signal.SIGTERM)
            done = command.wait()
        held.drop()
    assert done.code == 75
    assert monotonic() - asked < 5.0


def test_a_second_ctrl_c_does_not_wait_for_the_broker(url: str, broker: SlowBroker) -> None:
    sink = f"{broker.url}?stream=EVENTS&timeout=60"
    with broker.held(), publish(url, sink, "--drain", 60) as command:
        write(url, "Moved")
        broker.arrived()
        command.signal(signal.SIGTERM)
        wait_for_its_end(command)
        asked = monotonic()
        command.signal(signal.SIGINT)
        done = command.wait()
    assert done.code == 130
    assert monotonic() - asked < 5.0
    assert waiting(url) == 1


def test_a_second_sigterm_changes_nothing(url: str, broker: SlowBroker) -> None:
    with broker.held(), publish(url, f"{broker.url}?stream=EVENTS") as command:
        write(url, "Moved")
        broker.arrived()
        command.signal(signal.SIGTERM)
        wait_for_its_end(command)
        command.signal(signal.SIGTERM)
        broker.release()
        done = command.wait()
    assert (done.code, waiting(url)) == (0, 0)


@pytest.mark.slow
def test_it_is_not_ready_while_the_broker_is_down_and_ready_again_after(
    url: str, nats_server: NatsServer
) -> None:
    with publish(url, f"{nats_server.url}?stream=EVENTS", *LISTEN) as command:
        base = base_url(command)
        wait_until(partial(is_ready, base), timeout=10)
        nats_server.stop()
        wait_until(lambda: not is_ready(base), timeout=15)
        assert get_json(f"{base}/readyz") == (
            503,
            {
                "ready": False,
                "summary": "No messages are relayed: broker cannot be reached. "
                "See dsql-outbox status, and the log.",
                "database": "ok",
                "broker": "cannot be reached",
                "relay": "ok",
                "paused": [],
                "paused_more": 0,
                "held": 0,
            },
        )
        assert get(f"{base}/healthz")[0] == 200, "no restart would help"
        nats_server.start()
        wait_until(partial(is_ready, base), timeout=15)


def test_it_is_not_ready_before_there_is_a_broker(url: str, nats_server: NatsServer) -> None:
    nats_server.stop()
    with publish(url, f"{nats_server.url}?timeout=0.3", *LISTEN) as command:
        base = base_url(command)
        said = partial(get_json, f"{base}/readyz")
        wait_until(lambda: said()[1]["broker"] == "cannot be reached", timeout=10)
        wait_until(lambda: said()[1]["relay"] == "ok", timeout=10)
        assert said()[0] == 503


@pytest.mark.slow
def test_it_is_not_ready_while_the_database_is_out_of_reach(url: str, tmp_path: Path) -> None:
    with (
        PostgresProxy(url) as proxy,
        publish(proxy.url, f"jsonl:{tmp_path}/out", *LISTEN) as command,
    ):
        base = base_url(command)
        wait_until(partial(is_ready, base), timeout=10)
        proxy.refuse_connections()
        proxy.cut_all()
        wait_until(lambda: not is_ready(base), timeout=15)
        answer = partial(get_json, f"{base}/readyz")
        wait_until(lambda: answer()[1]["database"] == "cannot be reached", timeout=15)
        status, said = answer()
        assert (status, said["broker"]) == (503, "ok")
        assert get(f"{base}/healthz")[0] == 200
        proxy.refuse_connections(0)
        wait_until(partial(is_ready, base), timeout=15)


@pytest.mark.slow
def test_it_tells_when_the_tables_are_gone(url: str, tmp_path: Path) -> None:
    with publish(url, f"jsonl:{tmp_path}/out", *LISTEN) as command:
        base = base_url(command)
        wait_until(partial(is_ready, base), timeout=10)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP VIEW outbox.outbox_backlog")
        wait_until(lambda: not is_ready(base), timeout=15)
        assert "dsql-outbox schema apply" in get_json(f"{base}/readyz")[1]["database"]


@pytest.mark.parametrize(
    ("listen", "status"), [("127.0.0.1", 421), ("localhost", 421), ("0.0.0.0", 200)]
)
def test_on_the_loopback_a_page_of_another_site_may_not_read_it(
    url: str, tmp_path: Path, listen: str, status: int
) -> None:
    """Its own name may resolve to 127.0.0.1; the browser then sends that name."""
    sink = f"jsonl:{tmp_path}/out"
    with publish(url, sink, "--listen", f"{listen}:0") as command:
        port = base_url(command).rpartition(":")[2]
        base = f"http://127.0.0.1:{port}"
        for path in ("/", "/healthz", "/metrics"):
            assert get(base + path, Host=f"evil.example:{port}")[0] == status
            for host in ("localhost", f"127.0.0.1:{port}", "[::1]:1", "127.9.9.9"):
                assert get(base + path, Host=host)[0] == 200


@pytest.mark.parametrize(
    ("variable", "name"), [({}, "dsql-outbox publisher"), ({"PGAPPNAME": "relay-7"}, "relay-7")]
)
def test_its_sessions_are_named_after_the_publisher(
    url: str, tmp_path: Path, variable: dict[str, str], name: str
) -> None:
    names = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    with (
        publish(url, f"jsonl:{tmp_path}/out", **variable),
        psycopg.connect(url, autocommit=True, application_name="") as connection,
    ):

        def others() -> set[str]:
            return {found for (found,) in connection.execute(names)} - {"", KEEPER}

        wait_until(lambda: others() == {name}, timeout=10)


def test_told_to_end_it_is_not_ready_and_still_alive(url: str, broker: SlowBroker) -> None:
    with broker.held(), publish(url, f"{broker.url}?stream=EVENTS", *LISTEN) as command:
        base = base_url(command)
        write(url, "Moved")
        broker.arrived()
        command.signal(signal.SIGTERM)
        wait_until(lambda: get_json(f"{base}/readyz")[1]["relay"] == "shutting down", timeout=10)
        assert get_json(f"{base}/healthz") == (200, {"alive": True, "relay": "ok"})
        broker.release()
        assert command.wait().code == 0


def test_without_listen_it_listens_nowhere_and_the_database_hears_of_no_probe(url: str) -> None:
    with PostgresProxy(url) as proxy:
        assert (
            run("publish", "--database", proxy.url, "--sink", "stdout:", "--until-empty").code == 0
        )
        assert not any("outbox_backlog" in statement for statement in proxy.statements)


def test_an_address_that_is_taken_is_wrong_usage(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("publish", "--database", url, "--sink", "stdout:", "--listen", place)
    assert done.code == 2
    assert done.err.startswith(f"Error: cannot listen on {place}: ")
    assert len(done.err.splitlines()) == 1


def test_log_lines_in_json_lead_to_the_trace_and_hold_no_payload(
    url: str, nats_server: NatsServer
) -> None:
    (event,) = write(url, "a b")  # no subject of NATS
    with OtlpReceiver() as collector:
        done = run(
            *("publish", "--database", url, "--sink", f"{nats_server.url}?stream=EVENTS"),
            *("--until-empty", "--log-format", "json"),
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint},
        )
        (span,) = [span for span in collector.spans if span.name.startswith("publish ")]
        metrics = collector.metrics
    assert done.code == 1, "a message was given up"
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all(list(line)[:4] == ["timestamp", "level", "logger", "message"] for line in lines)
    (failure,) = [line for line in lines if "event_id" in line]
    assert failure["event_id"] == str(event.id)
    assert (failure["attempt"], failure["result"]) == (1, "rejected")
    assert failure["trace_id"] == span.trace_id.hex()
    assert failure["span_id"] == span.span_id.hex()
    assert "car-a" not in done.err
    assert lines[-2]["message"] == "relayed 0, failed 0, dead 1"
    (point,) = metrics["outbox.relay.dead_letters"].sum.data_points
    assert point.as_int == 1


def test_an_error_that_ends_it_is_json_too(database_url: str) -> None:
    words = ("--database", database_url, "--sink", "stdout:", "--log-format", "json")
    done = run("publish", *words)
    assert done.code == 78
    (line,) = [json.loads(line) for line in done.err.splitlines()]
    assert line["level"] == "ERROR"
    assert line["message"].endswith("`dsql-outbox schema apply` makes it new and empty")


def test_metrics_that_are_refused_cost_one_line_and_no_failure(url: str) -> None:
    with OtlpReceiver() as collector:
        done = run(
            *("publish", "--database", url, "--sink", "stdout:", "--until-empty"),
            env={"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{collector.endpoint}/elsewhere"},
        )
    assert done.code == 0
    assert done.err.count("metrics are lost") == 1
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_metrics_that_nobody_takes_cost_one_line_and_no_failure(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    began = monotonic()
    done = run(
        *("publish", "--database", url, "--sink", "stdout:", "--until-empty"),
        env={"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{port}/v1/metrics"},
    )
    assert done.code == 0
    assert done.err.count("metrics are lost") == 1
    assert monotonic() - began < 60, "the exporter alone would try for longer"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_METRICS_EXPORTER", "prometheus", "for Prometheus use --listen"),
        ("OTEL_METRICS_EXPORTER", "xray", "use otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/protobuf is supported"),
    ],
)
def test_a_wish_for_metrics_that_cannot_be_honoured_is_refused(
    url: str, variable: str, value: str, message: str
) -> None:
    env = {variable: value, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}
    done = run("publish", "--database", url, "--sink", "stdout:", "--until-empty", env=env)
    assert done.code == 2
    assert message in done.err
