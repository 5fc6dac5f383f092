"""``dsql-outbox publish`` as a process: real PostgreSQL, real NATS, real signals."""

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import anyio.to_thread
import nats
import psycopg
import pytest
from tests.support.commands import Command, run
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.cli.relay.relay_run import RelayRun
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.redaction import redacted
from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.relay.memory import breaker
from dsql_outbox.testing import NatsServer, OtlpReceiver
from dsql_outbox.writer import Writer


@pytest.fixture
def writer(url: str) -> Iterator[Writer]:
    with writer_of_any_topic(Database(url)) as writer:
        yield writer


def event(subject: str, n: int = 0) -> Event:
    return Event.new("CarMoved", [Entity("Car", subject, {"n": n})])


def waiting(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM outbox.outbox").fetchone()
    return row[0] if row else 0


def published(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


LEFT = "waiting messages stay in the outbox; run the same command to continue\n"


def has_lines(file: Path, count: int) -> bool:
    return len(published(file)) == count


async def in_stream(nats_server: NatsServer) -> list[tuple[str, str]]:
    """Dedupe id and subject of every message of the stream, in order."""
    client = await nats.connect(nats_server.url)
    stream = client.jetstream()
    count = (await stream.stream_info("EVENTS")).state.messages
    found = [await stream.get_msg("EVENTS", n + 1) for n in range(count)]
    await client.close()
    return [((m.headers or {})["Nats-Msg-Id"], m.subject or "") for m in found]


@pytest.mark.anyio
async def test_everything_reaches_nats_once_and_in_order_per_subject(
    url: str, writer: Writer, nats_server: NatsServer
) -> None:
    events = [event(f"car-{n % 3}", n) for n in range(40)]
    for each in events:
        writer.write(each)
    sink = f"{nats_server.url}?stream=EVENTS"
    done = run("publish", "--database", url, "--sink", sink, "--until-empty")
    first, warning, last = done.err.splitlines()
    assert done.code == 0
    assert first.startswith("relaying from ")
    assert first.endswith(f" to {redacted(nats_server.url)}, 3 shards")
    assert "stream EVENTS: 1 replica" in warning
    assert last == "relayed 40, failed 0, dead 0"
    stored = await in_stream(nats_server)
    assert {subject for _, subject in stored} == {"events.CarMoved"}
    for subject in range(3):
        mine = [str(e.id) for n, e in enumerate(events) if n % 3 == subject]
        assert [found for found, _ in stored if found in mine] == mine
    assert waiting(url) == 0


def test_an_empty_outbox_needs_no_broker_and_it_is_said(url: str, nats_server: NatsServer) -> None:
    words = ("publish", "--database", url, "--sink", nats_server.url, "--until-empty")
    reached = run(*words)
    nats_server.stop()
    unreached = run(*words, "--max-wait", "60")
    assert (reached.code, unreached.code) == (0, 0)
    assert reached.err.endswith("relayed 0, failed 0, dead 0\n")
    assert unreached.err.endswith("so nothing needed the broker, which was not reached\n")


def test_standard_output_holds_messages_and_nothing_else(url: str, writer: Writer) -> None:
    written = event("car-1")
    writer.write(written)
    done = run("publish", "--database", url, "--sink", "stdout:", "--until-empty", "-v")
    (line,) = done.out.splitlines()
    assert json.loads(line)["payload"] == written.to_json().decode()


def test_a_reader_of_standard_output_that_goes_away_ends_it(url: str, writer: Writer) -> None:
    writer.write(event("car-1"))
    with Command("publish", "--database", url, "--sink", "stdout:") as command:
        command.line()
        command.close_output()
        writer.write(event("car-1"))
        done = command.wait()
    assert done.code == 1
    assert done.err.endswith("relayed 1, failed 0, dead 0\n")
    assert "Traceback" not in done.err
    assert waiting(url) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_daemon_relays_what_comes_and_ends_in_order_on_a_signal(
    url: str, writer: Writer, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "out.jsonl"
    with Command("publish", "--database", url, "--sink", f"jsonl:{file}") as command:
        command.error_line()
        for n in range(3):
            writer.write(event("car-1", n))
            wait_until(partial(has_lines, file, n + 1), timeout=10)
        command.signal(number)
        done = command.wait()
    assert done.code == 0
    assert done.err.endswith("relayed 3, failed 0, dead 0\n" + LEFT)
    assert waiting(url) == 0


def test_a_signal_lets_the_running_calls_end(url: str, writer: Writer, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    writer.write(event("car-1"))
    with PostgresProxy(url) as proxy:
        held = proxy.hold(matching='DELETE FROM "outbox".outbox o')
        with Command("publish", "--database", proxy.url, "--sink", f"jsonl:{file}") as command:
            command.error_line()
            held.arrived(10)
            command.signal(signal.SIGTERM)
            assert command.error_line() == "finishing the work in progress\n"
            held.release()
            done = command.wait()
    assert (done.code, len(published(file)), waiting(url)) == (0, 1, 0)
    assert done.err.endswith("relayed 1, failed 0, dead 0\n" + LEFT)


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing(
    url: str, writer: Writer, tmp_path: Path
) -> None:
    file = tmp_path / "out.jsonl"
    writer.write(event("car-1"))
    with PostgresProxy(url) as proxy:
        held = proxy.hold(matching='DELETE FROM "outbox".outbox o')
        with Command("publish", "--database", proxy.url, "--sink", f"jsonl:{file}") as command:
            command.error_line()
            held.arrived(10)
            command.signal(signal.SIGINT)
            command.error_line()
            command.signal(signal.SIGINT)
            done = command.wait()
        held.drop()
    assert done.code == 130
    assert done.err == "relayed 1, failed 0, dead 0\n" + LEFT
    assert (len(published(file)), waiting(url)) == (1, 0), "what the broker has is deleted"


@pytest.mark.anyio
async def test_a_broker_that_is_not_there_yet_is_waited_for(
    url: str,
    writer: Writer,
    nats_server: NatsServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(breaker, "OPEN_FOR", 0.05)
    writer.write(event("car-1"))
    nats_server.stop()
    sink = f"{nats_server.url}?stream=EVENTS&timeout=0.3"
    relaying = RelayRun(Database(url), sink, PublisherSettings(), until_empty=True)
    async with anyio.create_task_group() as group:
        group.start_soon(relaying.run)
        told = "Cannot open the sink, the next attempt is in 0.1 s: "
        warned = partial(wait_until, lambda: told in caplog.text)
        await anyio.to_thread.run_sync(warned)
        await anyio.to_thread.run_sync(nats_server.start)
    assert len(await in_stream(nats_server)) == 1
    assert waiting(url) == 0


def test_a_signal_ends_the_wait_for_a_broker(url: str, nats_server: NatsServer) -> None:
    nats_server.stop()
    sink = f"{nats_server.url}?timeout=0.3"
    with Command("publish", "--database", url, "--sink", sink) as command:
        command.error_line()
        command.error_line()
        asked = monotonic()
        command.signal(signal.SIGINT)
        done = command.wait()
    assert done.code == 0
    assert monotonic() - asked < breaker.OPEN_FOR
    assert done.err.endswith("relayed 0, failed 0, dead 0\n" + LEFT)


@pytest.mark.parametrize(("choice", "dead"), [("release", 1), ("block", 0)])
def test_a_message_that_no_broker_takes_dies_or_blocks(
    url: str, writer: Writer, nats_server: NatsServer, choice: str, dead: int
) -> None:
    writer.write(Event.new("a b", [Entity("Car", "car-1")]))  # no subject of NATS
    sink = f"{nats_server.url}?stream=EVENTS"
    flags = ["--on-dead-letter", choice]
    with Command("publish", "--database", url, "--sink", sink, *flags) as command:
        while "WARNING Publish of event" not in command.error_line():
            pass
        command.signal(signal.SIGTERM)
        done = command.wait()
    assert done.err.endswith(f"relayed 0, failed {1 - dead}, dead {dead}\n" + LEFT)
    assert waiting(url) == 1 - dead


def test_a_message_that_was_given_up_makes_until_empty_fail(
    url: str, writer: Writer, nats_server: NatsServer
) -> None:
    writer.write(Event.new("a b", [Entity("Car", "car-1")]))  # no subject of NATS
    writer.write(event("car-2"))
    words = ("publish", "--database", url, "--sink", f"{nats_server.url}?stream=EVENTS")
    done = run(*words, "--until-empty")
    assert done.code == 1
    assert done.err.splitlines()[-2:] == [
        "relayed 1, failed 0, dead 1",
        "gave up on 1 message: see dsql-outbox messages list --state dead",
    ]
    assert run(*words, "--until-empty").code == 0, "it died in the run before"


@pytest.mark.parametrize("is_there", [True, False])
def test_until_empty_waits_no_longer_than_it_was_told(
    url: str, writer: Writer, nats_server: NatsServer, is_there: bool
) -> None:
    """The broker has no stream that takes the message, or is not there at all."""
    writer.write(event("car-1"))
    if not is_there:
        nats_server.stop()
    words = ("publish", "--database", url, "--sink", f"{nats_server.url}?timeout=0.3")
    done = run(*words, "--until-empty", "--max-wait", "0.2")
    assert done.code == 75
    assert done.err.splitlines()[-3:] == [
        "relayed 0, failed 0, dead 0",
        "nothing can be sent now, and --max-wait is over",
        "1 message waits in the outbox: 1 in events.CarMoved; see dsql-outbox messages list",
    ]
    assert waiting(url) == 1


def test_until_empty_says_what_it_leaves_for_an_operator(url: str, writer: Writer) -> None:
    writer.write(event("car-1"))
    writer.write(event("car-2"))
    with psycopg.connect(url) as connection:
        pause = (
            "INSERT INTO outbox.outbox_topics VALUES ('default', 'events.CarMoved', '', 'o', now())"
        )
        connection.execute(pause)
    done = run("publish", "--database", url, "--sink", "stdout:", "--until-empty")
    assert done.code == 0
    assert done.err.splitlines()[-1] == (
        "2 messages wait in the outbox: 2 in events.CarMoved (paused); "
        "for paused topics, see dsql-outbox topics list"
    )


def test_a_run_that_may_not_wait_sends_what_can_be_sent(
    url: str, writer: Writer, tmp_path: Path
) -> None:
    for n in range(20):
        writer.write(event(f"car-{n % 3}"))
    sink = f"jsonl:{tmp_path / 'out.jsonl'}"
    done = run("publish", "--database", url, "--sink", sink, "--until-empty", "--max-wait", 0)
    assert (done.code, waiting(url)) == (0, 0), done.err


def test_a_server_that_accepts_no_writes_at_the_start_ends_it_with_69(url: str) -> None:
    with PostgresProxy(url) as proxy:
        proxy.refuse(1000, sqlstate="25006", message="read-only", matching="INSERT INTO")
        done = run("publish", "--database", proxy.url, "--sink", "stdout:")
    assert (done.code, done.err.splitlines()[-1]) == (69, "Error: read-only")


def test_a_change_of_the_schema_while_it_starts_does_not_end_it(url: str, writer: Writer) -> None:
    writer.write(event("car-1"))
    with PostgresProxy(url) as proxy:
        proxy.refuse(1, message="(OC001)", matching='count(*) FROM "outbox".outbox_leases')
        done = run("publish", "--database", proxy.url, "--sink", "stdout:", "--until-empty")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 1


def test_spans_go_where_the_environment_says(url: str, writer: Writer) -> None:
    writer.write(event("car-1"))
    with OtlpReceiver() as collector:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "DSQL_OUTBOX_SINK": "stdout:",
        }
        assert run("publish", "--database", url, "--until-empty", env=env).code == 0
        (resource,) = collector.requests[0].resource_spans
    names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert names["service.name"] == "dsql-outbox-publish"
    assert "publish events.CarMoved" in {span.name for span in collector.spans}
