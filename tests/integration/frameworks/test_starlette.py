"""The door for Starlette: the lifespan, a publisher that fails, and wrong arguments."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import anyio
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import only_model
from tests.support.served_app import Served, served

from dsql_outbox import (
    Database,
    Entity,
    Event,
    SchemaError,
    SettingsError,
    Writer,
    WriterClosed,
)
from dsql_outbox.operations import health_probe
from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher import Answer
from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.starlette import Outbox, background_publisher, outbox_writer, readyz
from dsql_outbox.testing import MemorySink

pytestmark = pytest.mark.anyio


async def write(request: Request) -> JSONResponse:
    writer = await outbox_writer(request)
    receipt = await writer.write(Event.new("A", [Entity("Car", "1", {})]))
    return JSONResponse(receipt.to_dict())


def application(outbox: Outbox) -> Starlette:
    routes = [Route("/", write, methods=["POST"]), Route("/readyz", readyz)]
    return Starlette(routes=routes, lifespan=outbox.lifespan)


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_publisher, "_WAIT", 0.05)
    monkeypatch.setattr(health_probe, "EVERY", 0.1)


async def until(server: Served, fits: Callable[[Any], bool], *, status: int) -> Any:
    """Ask for the readiness until it fits, and return it."""
    with anyio.fail_after(60):
        while True:
            answer = await server.client.get("/readyz")
            if answer.status_code == status and fits(answer.json()):
                return answer.json()
            await anyio.sleep(0.01)


async def test_starlette_alone_writes_and_relays(database: Database) -> None:
    sink = MemorySink()
    async with served(application(Outbox(database, sink=sink))) as server:
        receipt = (await server.client.post("/")).json()
        (message,) = await sink.published(1)
        assert receipt["eventId"] == str(message.event_id)
        await until(server, lambda ready: ready["ready"], status=200)


async def test_its_publisher_may_have_a_map(database: Database) -> None:
    sink = MemorySink()
    async with served(application(Outbox(database, sink=sink, map=lambda _: "mapped"))) as server:
        await server.client.post("/")
        (message,) = await sink.published(1)
        assert message.payload == b"mapped"
    with pytest.raises(TypeError, match="Outbox takes a function of a message as its map"):
        Outbox(database, sink=sink, map=5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("database")
async def test_without_a_publisher_it_is_ready_while_the_database_answers(
    outbox_url: str,
) -> None:
    proxy = PostgresProxy(outbox_url)
    with ExitStack() as reachable, psycopg.connect(outbox_url, autocommit=True) as sql:
        reachable.enter_context(proxy)
        async with served(application(Outbox(Database(proxy.url)))) as server:
            await until(server, lambda ready: ready["database"] == "ok", status=200)
            asked = len(proxy.statements)
            answers = [await server.client.get("/readyz") for _ in range(100)]
            assert {answer.status_code for answer in answers} == {200}
            assert len(proxy.statements) - asked < len(answers) / 2, "an answer is kept for 1 s"
            sql.execute("ALTER TABLE outbox.outbox_leases RENAME TO away")
            told = await until(server, lambda ready: not ready["ready"], status=503)
            assert "lacks the outbox tables" in told["database"]
            sql.execute("ALTER TABLE outbox.away RENAME TO outbox_leases")
            await until(server, lambda ready: ready["ready"], status=200)
            reachable.close()
            await until(server, lambda ready: ready["database"] == "cannot be reached", status=503)


async def test_a_function_is_applied_without_a_broker(database: Database, outbox_url: str) -> None:
    async def keep(connection: AsyncConnection, message: Message) -> None:
        await connection.execute("INSERT INTO public.kept VALUES (%s)", (message.event_id,))

    await only_model(database)
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        sql.execute("CREATE TABLE public.kept (id uuid)")
        async with served(application(Outbox(database, apply=keep, target="model"))) as server:
            await server.client.post("/")
            await until(server, lambda ready: ready["ready"], status=200)
            with anyio.fail_after(60):
                while not sql.execute("SELECT FROM public.kept").fetchall():  # noqa: ASYNC110
                    await anyio.sleep(0.01)


async def test_the_application_starts_without_its_broker_and_relays_when_it_comes(
    database: Database, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{nats_server.url}?stream=EVENTS&subjects=events.>&timeout=1"
    nats_server.stop()
    async with served(application(Outbox(database, sink=url))) as server:
        answer = await server.client.post("/")
        assert answer.status_code == 200
        await until(server, lambda ready: ready["broker"] == "cannot be reached", status=503)
        assert "Cannot open the sink, the next attempt is in " in caplog.text
        await anyio.to_thread.run_sync(nats_server.start)
        await until(server, lambda ready: ready["ready"], status=200)


async def test_a_publisher_that_fails_is_told_and_begins_again(
    database: Database, outbox_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = MemorySink()
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        async with served(application(Outbox(database, sink=sink))) as server:
            await until(server, lambda ready: ready["ready"], status=200)
            sql.execute("ALTER TABLE outbox.outbox RENAME TO away")
            told = await until(server, lambda ready: "failed" in ready["relay"], status=503)
            assert told["relay"] == "failed: SchemaError"
            await until(server, lambda ready: ready["broker"] == "not connected yet", status=503)
            (record, *_) = [r for r in caplog.records if r.levelno == logging.ERROR]
            assert record.getMessage().startswith("Publisher failed, another starts in 0.05 s: ")
            assert "schema apply" in record.getMessage()
            assert record.exc_info
            sql.execute("ALTER TABLE outbox.away RENAME TO outbox")
            await server.client.post("/")
            await sink.published(1)
            await until(server, lambda ready: ready["ready"], status=200)


class Quoting:
    """A sink that quotes the message in its error."""

    system = "test"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        del answer
        for message in messages:
            raise ValueError(message.payload.decode(), message.headers)


async def test_a_sink_that_quotes_the_message_puts_no_payload_into_the_log(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with served(application(Outbox(database, sink=Quoting()))) as server:
        await until(server, lambda ready: ready["ready"], status=200)
        with Writer(database) as writer:
            writer.write(Event.new("A", [Entity("Car", "1", {"owner": "canary"})]))
        told = await until(server, lambda ready: "failed" in ready["relay"], status=503)
    assert told["relay"] == "failed: ValueError"
    failed = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "another starts in 0.05 s: ValueError" in failed[0].getMessage()
    assert "in publish" in caplog.text, "the places of the error"
    assert "canary" not in caplog.text


async def error_at_the_start(outbox: Outbox) -> Exception:
    """What the lifespan raises before it lets the application start."""
    has_started = False
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
        async with outbox.lifespan():
            has_started = True
    assert not has_started
    return caught.value


@pytest.mark.parametrize("sink", ["nowhere://x", "nats://x?unknown=1"])
async def test_a_wrong_sink_ends_the_start(database: Database, sink: str) -> None:
    error = await error_at_the_start(Outbox(database, sink=sink))
    assert isinstance(error, SettingsError)


async def test_missing_tables_end_the_start_of_a_publisher(database_url: str) -> None:
    error = await error_at_the_start(Outbox(Database(database_url), sink=MemorySink()))
    assert isinstance(error, SchemaError)
    assert "schema apply" in str(error)


async def test_the_writer_is_closed_after_the_lifespan_and_another_begins(
    database: Database,
) -> None:
    outbox = Outbox(database, sink=MemorySink())
    event = Event.new("A", [Entity("Car", "1", {})])
    for version in (1, 2):
        async with outbox.lifespan() as state:
            request = Request({"type": "http", "state": state})
            writer = await outbox_writer(request)
            receipt = await writer.write(Event.new("A", event.entities))
            assert receipt.entities[0].version == version
        with pytest.raises(WriterClosed):
            await writer.write(event)


async def test_a_request_without_the_lifespan_names_the_remedy() -> None:
    with pytest.raises(SettingsError, match=r"give it lifespan=Outbox\(database, \.\.\)\.lifespan"):
        await outbox_writer(Request({"type": "http"}))
