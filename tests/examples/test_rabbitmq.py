"""examples/rabbitmq: its consumer keeps the order of each subject, however it fails or ends."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import psycopg
import pytest
from anyio import to_thread
from tests.support.brokers.rabbitmq_broker import client
from tests.support.brokers.rabbitmq_server import RabbitMqServer
from tests.support.brokers.rabbitmq_service import TABLE, new_consumer
from tests.support.brokers.running_broker import URL
from tests.support.checkout import ROOT
from tests.support.waiting import wait_until

from dsql_outbox import Message
from dsql_outbox.inbox import Received
from dsql_outbox.publisher import Delivered, open_sink
from dsql_outbox.testing.sink_contract import in_order, new_message

if urlsplit(URL).scheme != "rabbitmq":
    pytest.skip("RabbitMQ is no wheel: `make real-brokers` tests it", allow_module_level=True)

pytestmark = pytest.mark.anyio

SUBJECTS, MOVES = 12, 20
ALL = SUBJECTS * MOVES


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
        await new_consumer().declare(channel)
    return running


def moves(first: int = 1, last: int = MOVES) -> list[Message]:
    """These messages of each subject, in order."""
    return [_move(f"Car/{n}", number) for number in range(first, last + 1) for n in range(SUBJECTS)]


def _move(subject: str, number: int) -> Message:
    before = str(number - 1)
    return new_message(subject, sequence=str(number), position=str(number), previousposition=before)


async def publish(server: RabbitMqServer, messages: list[Message]) -> None:
    async with open_sink(f"rabbitmq://{server.host}?exchange=shop&timeout=30") as sink:
        assert set((await in_order(sink, messages)).outcomes) == {Delivered()}


async def until(holds: Callable[[], bool]) -> None:
    await to_thread.run_sync(wait_until, holds, 60)


# --- in processes of its own, with the inbox -------------------------------------------


class Service:
    """Two processes of the example that read all queues, and are started again when they end."""

    def __init__(self, server: RabbitMqServer, database: str) -> None:
        self._words = [
            *(sys.executable, "-m", "tests.support.brokers.rabbitmq_service"),
            *(database, "0", "1", "2", "3"),
        ]
        self._env = os.environ | {"AMQP_URL": f"amqp://guest:guest@{server.host}/"}
        self._running = [self._start() for _ in range(2)]

    def harm(self, number: int) -> None:
        """Send a signal to the process that has run for longer, which has more of the queues."""
        self._running[0].send_signal(number)

    def restarted(self) -> bool:
        """Start a process for each that has ended; return whether there was one."""
        ended = [process for process in self._running if process.poll() is not None]
        for process in ended:
            self._running.remove(process)
            self._running.append(self._start())
        return bool(ended)

    def end(self) -> None:
        """Press Ctrl-C, which ends each process at any time."""
        for process in self._running:
            process.send_signal(signal.SIGINT)
        for process in self._running:
            process.wait(30)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, cwd=ROOT, env=self._env, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("harm", [None, signal.SIGINT, signal.SIGKILL])
async def test_each_message_is_handled_once_and_in_order_whatever_happens_to_its_consumer(
    server: RabbitMqServer, url: str, harm: signal.Signals | None
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS handled")
        connection.execute(TABLE)

        def handled() -> list[tuple[str, int]]:
            query = "SELECT subject, sequence FROM handled ORDER BY number"
            return connection.execute(query).fetchall()

        async def until_handled(number: int) -> None:
            await until(lambda: not service.restarted() and len(handled()) >= number)

        await publish(server, moves())
        service = Service(server, url)
        try:
            for part in range(1, 4):
                await until_handled(part * ALL // 4)
                if harm is not None:
                    service.harm(harm)
                    await until(service.restarted)
            await until_handled(ALL)
        finally:
            service.end()
        found = handled()

    assert len(found) == ALL
    for subject in {subject for subject, _ in found}:
        assert [n for each, n in found if each == subject] == list(range(1, MOVES + 1))


# --- in this process -------------------------------------------------------------------


class Handler:
    """The first time that each message was handled, per subject in this order."""

    def __init__(self, consumer: ModuleType) -> None:
        vars(consumer)["handle"] = self
        self.firsts: dict[tuple[str, int], None] = {}
        self.calls = Counter[str]()
        self.fails: Callable[[int], bool] = lambda _: False

    async def __call__(self, message: Received) -> None:
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
    return new_consumer()


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
    billing, mailing = new_consumer(), new_consumer()
    vars(mailing)["SERVICE"] = "mailing"
    handlers = [Handler(billing), Handler(mailing)]
    async with client(server.host) as channel:
        await mailing.declare(channel)
    await publish(server, moves(last=3))
    async with consuming(server, billing), consuming(server, mailing):
        for each in handlers:
            await each.until_handled(SUBJECTS * 3)

    assert all(each.numbers(n) == [1, 2, 3] for each in handlers for n in range(SUBJECTS))
