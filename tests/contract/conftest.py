"""Each sink's broker, and the faults of each to see its sink through."""

from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests._support.brokers import (
    SUBJECTS,
    Before,
    Broker,
    FileBroker,
    MemoryBroker,
    NatsBroker,
    OpenStage,
    Stage,
    StdoutBroker,
    files_of_at_most,
)

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Retry, open_sink
from dsql_outbox.publisher.sinks._lines import json_line
from dsql_outbox.testing import NatsServer, TcpProxy


@pytest.fixture
def nats_server() -> Generator[NatsServer]:
    """A NATS server of this test's own, which it may kill."""
    with NatsServer() as server:
        yield server


@pytest.fixture
def nats_proxy(nats_server: NatsServer) -> Generator[TcpProxy]:
    """What a client of the server can be cut off with."""
    port = urlsplit(nats_server.url).port
    assert port is not None
    with TcpProxy("127.0.0.1", port) as proxy:
        yield proxy


@pytest.fixture
def nats_broker(nats_server: NatsServer) -> NatsBroker:
    """A server with the stream EVENTS, once the sink was opened."""
    return NatsBroker(nats_server)


@pytest.fixture(params=["memory", "jsonl", "stdout", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Broker:
    """Each sink's broker in turn."""
    match request.param:
        case "memory":
            return MemoryBroker()
        case "jsonl":
            return FileBroker(tmp_path / "events.jsonl")
        case "stdout":
            return StdoutBroker(tmp_path / "stdout.jsonl")
        case _:
            found: NatsBroker = request.getfixturevalue("nats_broker")
            return found


@pytest.fixture(
    params=[
        "memory refuses",
        "memory loses the answer",
        "jsonl tears the line",
        "nats refuses",
        "nats loses the answer",
    ]
)
def open_stage(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStage:
    """Each fault that a broker of ours can have at one message, in turn."""
    match request.param:
        case "memory refuses":
            return partial(_memory_fails, stored=False)
        case "memory loses the answer":
            return partial(_memory_fails, stored=True)
        case "jsonl tears the line":
            return partial(_jsonl_tears_the_line, FileBroker(tmp_path / "events.jsonl"))
        case "nats refuses":
            return partial(_nats_refuses, request.getfixturevalue("nats_broker"))
        case _:
            return partial(
                _nats_loses_the_answer,
                request.getfixturevalue("nats_server"),
                request.getfixturevalue("nats_proxy"),
            )


@asynccontextmanager
async def _memory_fails(message: Message, *, stored: bool) -> AsyncGenerator[Stage]:
    broker = MemoryBroker()
    broker.sink.fail(message.event_id, Retry("once"), stored=stored)

    async def heal() -> None:
        """It fails once."""

    yield Stage(broker.sink, broker, heal, stores=stored)


@asynccontextmanager
async def _jsonl_tears_the_line(broker: FileBroker, message: Message) -> AsyncGenerator[Stage]:
    """The disk is full in the middle of the message."""
    with ExitStack() as limit:
        async with broker.open() as sink:

            async def heal() -> None:
                limit.close()

            line = len(json_line(message))
            limit.enter_context(files_of_at_most(line + line // 2))
            yield Stage(sink, broker, heal)


@asynccontextmanager
async def _nats_refuses(broker: NatsBroker, _message: Message) -> AsyncGenerator[Stage]:
    """No stream takes the message's subject."""

    async def heal() -> None:
        async with broker.jetstream() as jetstream:
            await jetstream.update_stream(name="EVENTS", subjects=[SUBJECTS, "late.>"])

    async with broker.open() as sink:
        yield Stage(sink, broker, heal, exactly_once=True)


@asynccontextmanager
async def _nats_loses_the_answer(
    server: NatsServer, proxy: TcpProxy, message: Message
) -> AsyncGenerator[Stage]:
    """The stream stores the message, and its acknowledgement never comes."""
    parameters = f"stream=EVENTS&subjects={SUBJECTS},late.>&timeout=1"
    with ExitStack() as silence:

        async def heal() -> None:
            silence.close()
            proxy.cut_all()

        def swallow() -> None:
            silence.enter_context(proxy.swallow_server())

        async with open_sink(f"nats://127.0.0.1:{proxy.port}?{parameters}") as sink:
            yield Stage(
                Before(sink, message.event_id, swallow),
                NatsBroker(server),
                heal,
                stores=True,
                exactly_once=True,
            )
