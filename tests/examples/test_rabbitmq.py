"""examples/rabbitmq: its consumer keeps the order of each subject, however it fails or ends."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from anyio import to_thread
from tests.support.brokers.rabbitmq_broker import client
from tests.support.brokers.rabbitmq_server import RabbitMqServer
from tests.support.brokers.running_broker import URL
from tests.support.example_consumers import (
    ALL,
    MOVES,
    SUBJECTS,
    Service,
    billed,
    handle_all,
    moves,
    new_consumer,
)
from tests.support.waiting import wait_until

from dsql_outbox import Message
from dsql_outbox.inbox import Received
from dsql_outbox.publisher import Delivered, open_sink
from dsql_outbox.testing.sink_contract import in_order

if urlsplit(URL).scheme != "rabbitmq":
    pytest.skip("RabbitMQ is no wheel: `make real-brokers` tests it", allow_module_level=True)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)


@pytest.fixture(scope="module")
def running() -> Iterator[RabbitMqServer]:
    """A server of these tests."""
    with RabbitMqServer() as server:
        yield server


@pytest.fixture
async def server(running: RabbitMqServer) -> RabbitMqServer:
    """The server, with the example's exchanges and queues, which are empty."""
    async with client(running.host) as channel:
        await channel.exchange_delete("shop")
        for service in ("billing", "mailing"):
            await channel.exchange_delete(f"{service}.by-subject")
            for name in ("rejected", *range(4)):
                await channel.queue_delete(f"{service}.{name}")
        await new_consumer("rabbitmq").declare(channel)
    return running


async def publish(server: RabbitMqServer, messages: list[Message]) -> None:
    async with open_sink(f"rabbitmq://{server.host}?exchange=shop&timeout=30") as sink:
        assert set((await in_order(sink, messages)).outcomes) == {Delivered()}


async def until(holds: Callable[[], bool]) -> None:
    await to_thread.run_sync(wait_until, holds, 60)


# --- in processes of its own, with the inbox -------------------------------------------


@pytest.mark.parametrize("harm", [None, signal.SIGINT, signal.SIGKILL])
async def test_each_message_is_handled_once_and_in_order_whatever_happens_to_its_consumer(
    server: RabbitMqServer, url: str, harm: signal.Signals | None
) -> None:
    await publish(server, moves())
    env = {"AMQP_URL": f"amqp://guest:guest@{server.host}/", "DATABASE_URL": url}
    with billed(url) as table:
        service = Service("rabbitmq", "0", "1", "2", "3", env=env)
        await to_thread.run_sync(handle_all, service, table, harm)


# --- in this process -------------------------------------------------------------------


class Handler:
    """The first time that each message was handled, per subject in this order."""

    def __init__(self, consumer: ModuleType) -> None:
        vars(consumer)["handle"] = self
        self.firsts: dict[tuple[str, int], None] = {}
        self.calls = Counter[str]()
        self.fails: Callable[[int], bool] = lambda _: False

    async def __call__(self, message: Received, _: object) -> None:
        self.calls[message.key] += 1
        await asyncio.sleep(0)  # a place to be cancelled
        if self.fails(self.calls.total()):
            raise RuntimeError("the handler fails")
        self.firsts[message.key, int(message.headers["sequence"])] = None

    async def until_handled(self, number: int, task: asyncio.Task[None] | None = None) -> None:
        """Wait for this number of messages, or for the end of a task."""
        await until(lambda: len(self.firsts) >= number or (task is not None and task.done()))

    async def until_called(self, more: int, task: asyncio.Task[None]) -> None:
        """Wait for this number of calls, or for the end of a task."""
        calls = self.calls.total() + more
        await until(lambda: self.calls.total() >= calls or task.done())

    def numbers(self, subject: int) -> list[int]:
        """Of the messages of a subject that were handled, in order."""
        return [number for key, number in self.firsts if key == f"Car/{subject}"]


@asynccontextmanager
async def consuming(
    server: RabbitMqServer, consumer: ModuleType
) -> AsyncGenerator[asyncio.Task[None]]:
    """The example in a task, which is cancelled at the end."""
    vars(consumer)["URL"] = f"amqp://guest:guest@{server.host}/"
    task = asyncio.create_task(consumer.main([0, 1, 2, 3]))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def consumer() -> ModuleType:
    """The module of the example."""
    return new_consumer("rabbitmq")


async def test_a_task_that_is_cancelled_loses_no_order(
    server: RabbitMqServer, consumer: ModuleType
) -> None:
    await publish(server, moves())
    handler = Handler(consumer)
    handler.fails = lambda call: call % 9 == 0
    async with consuming(server, consumer) as ours:
        while len(handler.firsts) < ALL:
            async with consuming(server, consumer):  # it takes over
                before = len(handler.firsts)
                await handler.until_handled(min(ALL, before + 30))
                ours.cancel()
                await asyncio.gather(ours, return_exceptions=True)
                await handler.until_handled(min(ALL, before + 60))

    assert all(handler.numbers(n) == list(range(1, MOVES + 1)) for n in range(SUBJECTS))


async def test_nothing_is_dropped_by_restarts_while_the_handler_fails(
    server: RabbitMqServer, consumer: ModuleType
) -> None:
    await publish(server, moves(last=3))
    handler = Handler(consumer)
    handler.fails = lambda _: True
    for _ in range(25):  # RabbitMQ 4 drops a message at the 21st delivery by default
        async with consuming(server, consumer) as task:
            await handler.until_called(8, task)
    handler.fails = lambda _: False
    async with consuming(server, consumer):
        await handler.until_handled(SUBJECTS * 3)

    assert all(handler.numbers(n) == [1, 2, 3] for n in range(SUBJECTS))


async def test_a_message_of_another_sender_is_put_aside_and_the_others_are_handled(
    server: RabbitMqServer, consumer: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    foreign: list[dict[str, Any]] = [{}, {"ce-subject": "Car/1"}, {"ce-subject": 7}]
    await publish(server, moves(last=2))
    async with client(server.host) as channel:
        shop = await channel.get_exchange("shop", ensure=False)
        for headers in foreign:
            await shop.publish(aio_pika.Message(b"a secret", headers=headers), "events.CarMoved")
        await publish(server, moves(first=3, last=4))
        handler = Handler(consumer)
        async with consuming(server, consumer) as task:
            await handler.until_handled(SUBJECTS * 4, task)
            assert not task.done()
        rejected = await channel.get_queue("billing.rejected")
        bodies = [(await rejected.get(timeout=30)).body for _ in foreign]

    assert all(handler.numbers(n) == [1, 2, 3, 4] for n in range(SUBJECTS))
    assert bodies == [b"a secret"] * len(foreign)
    assert len([each for each in caplog.records if each.name == "billing"]) == len(foreign)
    assert "a secret" not in caplog.text


async def test_each_of_two_services_gets_all_messages(server: RabbitMqServer) -> None:
    billing, mailing = new_consumer("rabbitmq"), new_consumer("rabbitmq")
    vars(mailing)["SERVICE"] = "mailing"
    handlers = [Handler(billing), Handler(mailing)]
    async with client(server.host) as channel:
        await mailing.declare(channel)
    await publish(server, moves(last=3))
    async with consuming(server, billing), consuming(server, mailing):
        for each in handlers:
            await each.until_handled(SUBJECTS * 3)

    assert all(each.numbers(n) == [1, 2, 3] for each in handlers for n in range(SUBJECTS))
