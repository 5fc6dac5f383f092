"""examples/celery: tasks that are enqueued in a transaction, and what Celery's worker runs."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from tests.support.brokers.rabbitmq_server import RabbitMqServer
from tests.support.brokers.running_broker import URL
from tests.support.checkout import ROOT
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until

from dsql_outbox import Database, Message, SinkUnavailable, Writer
from dsql_outbox.observability.otel.spans import TraceFacts
from dsql_outbox.publisher.sinks import Delivered, Rejected, Retry, Unavailable
from dsql_outbox.servers.server_process import free_port
from dsql_outbox.testing import OtlpReceiver
from dsql_outbox.testing.sink_contract import deliver, new_message, published

FOLDER = ROOT / "examples/celery"
ORDERS, CUSTOMERS = 300, 7

on_rabbitmq = pytest.mark.skipif(
    urlsplit(URL).scheme != "rabbitmq",
    reason="RabbitMQ is no wheel: `make real-brokers` runs a worker on it",
)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[Any]:
    """The module of the example, for the database of this test, and a broker in memory."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("BROKER_URL", "memory://")
    import shop  # noqa: PLC0415 - its folder is put on the path

    shop.make_tables()
    yield shop
    for name in ("shop", "celery_sink", "tracing"):
        sys.modules.pop(name, None)


def a_task(key: str = "Customer/1", **attributes: str) -> Message:
    payload = json.dumps({"task": "shop.bill", "args": ["O-1", "C-1"]}).encode()
    return new_message(key=key, payload=payload, **attributes)


def opened(app: Any, timeout: float = 5.0) -> Any:
    from celery_sink import open_celery  # noqa: PLC0415 - its folder is put on the path

    return open_celery(app, timeout)


# --- the sink, on a broker in memory ---------------------------------------------------


@pytest.mark.anyio
async def test_a_task_has_the_id_of_its_message_in_every_try_and_its_trace(shop: Any) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message = a_task(traceparent=trace)
    with shop.app.connection_for_read() as connection:
        queue = shop.app.amqp.queues["celery"].bind(connection.default_channel)
        queue.declare()
        queue.purge()
        async with opened(shop.app) as sink:
            assert await published(sink, [message]) == [Delivered()]
            assert await published(sink, [message]) == [Delivered()]
        found = [queue.get() for _ in range(2)]

    for task in found:
        assert task.headers["id"] == message.dedupe_id
        assert task.headers["task"] == "shop.bill"
        assert task.headers["traceparent"] == trace
        assert task.payload[0] == ["O-1", "C-1"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"kwargs":{}}', b'{"task":"t","args":7}', b"\xff"]
)
async def test_a_payload_that_names_no_task_is_rejected_and_not_shown(
    shop: Any, payload: bytes
) -> None:
    async with opened(shop.app) as sink:
        first, second = await published(sink, [new_message(payload=payload), a_task("Customer/2")])

    assert isinstance(first, Rejected)
    assert first.error.startswith("no task: ")
    assert second == Delivered()


def test_a_task_whose_database_refuses_is_tried_until_its_bill_is_stored(
    shop: Any, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shop, "WAIT", 0.05, raising=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE bills RENAME TO lost_bills")
        running = threading.Thread(target=shop.bill.apply, args=(("O-1", "C-1"),))
        running.start()
        wait_until(lambda: "UndefinedTable" in caplog.text)
        connection.execute("ALTER TABLE lost_bills RENAME TO bills")
        running.join(30)

    assert [bill[:2] for bill in bills(url)] == [("O-1", "C-1")]


@pytest.mark.anyio
async def test_a_broker_that_is_away_is_an_unavailable_sink(shop: Any) -> None:
    shop.app.conf.broker_url = f"amqp://127.0.0.1:{free_port()}"
    with pytest.raises(SinkUnavailable, match="Celery's broker cannot be used"):
        async with opened(shop.app, 0.5):
            pass


def test_an_order_whose_transaction_conflicts_has_one_event(
    shop: Any, url: str, proxy: PostgresProxy
) -> None:
    with Writer(Database(proxy.url)) as writer:
        shop.place(writer, "O-1", "C-1")
        proxy.refuse(2)
        receipt = shop.place(writer, "O-2", "C-1")

    assert receipt.attempts == 3
    with psycopg.connect(url) as connection:
        orders = connection.execute("SELECT id FROM orders ORDER BY id").fetchall()
        ((events,),) = connection.execute("SELECT count(*) FROM outbox.outbox").fetchall()
    assert (orders, events) == ([("O-1",), ("O-2",)], 2)


def test_the_relay_ends_its_work_on_ctrl_c(url: str, in_memory: "Programs") -> None:
    with psycopg.connect(url, autocommit=True) as connection:

        def publishers() -> int:
            query = "SELECT count(*) FROM outbox.outbox_publishers"
            ((count,),) = connection.execute(query).fetchall()
            return int(count)

        relay = in_memory.relay()
        wait_until(lambda: publishers() == 1)
        relay.send_signal(signal.SIGINT)
        assert relay.wait(30) == 0
        assert publishers() == 0, "it has said goodbye"


# --- a worker on RabbitMQ --------------------------------------------------------------


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMqServer]:
    """A server of these tests, which they may kill."""
    with RabbitMqServer() as server:
        yield server


class Programs:
    """The example's programs, in processes of their own that a test may kill."""

    def __init__(self, **env: str) -> None:
        self._env = os.environ | env
        self._running: list[subprocess.Popen[bytes]] = []

    def worker(self, processes: int = 2) -> subprocess.Popen[bytes]:
        options = ["--concurrency", str(processes), "--loglevel", "ERROR", "--without-mingle"]
        return self._start("-m", "celery", "--app", "shop", "worker", *options, "--without-gossip")

    def relay(self) -> subprocess.Popen[bytes]:
        return self._start("relay.py")

    def side_by_side(self) -> str:
        ran = subprocess.run(
            [sys.executable, "side_by_side.py"],
            cwd=FOLDER, env=self._env, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return ran.stdout

    def kill(self, program: subprocess.Popen[bytes]) -> None:
        """Kill a program and the processes that it has started."""
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        self._running.remove(program)

    def end(self) -> None:
        for program in list(self._running):
            self.kill(program)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        program = subprocess.Popen(
            [sys.executable, *words],
            cwd=FOLDER, env=self._env, start_new_session=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._running.append(program)
        return program


@pytest.fixture
def in_memory(shop: Any, url: str) -> Iterator[Programs]:
    """Programs on the database of this test, with a broker in memory."""
    assert shop, "its tables are there"
    found = Programs(DATABASE_URL=url, BROKER_URL="memory://")
    yield found
    found.end()


@pytest.fixture
def broker(shop: Any, rabbitmq: RabbitMqServer) -> str:
    """The URL of the server, which has no task of an earlier test."""
    rabbitmq.start()
    with suppress(subprocess.CalledProcessError):  # it is not there yet
        rabbitmq.ctl("delete_queue", "celery")
    url = f"amqp://{rabbitmq.host}"
    shop.app.conf.broker_url = url
    return url


@pytest.fixture
def programs(url: str, broker: str) -> Iterator[Programs]:
    """Programs on the server, and on the database of this test."""
    found = Programs(DATABASE_URL=url, BROKER_URL=broker, OTEL_BSP_SCHEDULE_DELAY="100")
    yield found
    found.end()


def bills(url: str) -> list[tuple[str, str, str]]:
    """Order, customer and task id of the bills, in the order in which they were stored."""
    with psycopg.connect(url) as connection:
        query = "SELECT order_id, customer, task_id FROM bills ORDER BY number"
        return connection.execute(query).fetchall()


def place_orders(shop: Any, first: int, last: int) -> None:
    """Place orders of few customers from several threads, so that transactions conflict."""

    def place(part: int) -> None:
        with Writer(shop.database) as writer:
            for n in range(first + part, last, threads):
                shop.place(writer, f"O-{n}", f"C-{n % CUSTOMERS}")

    threads = 3
    running = [threading.Thread(target=place, args=(part,)) for part in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def event_ids(shop: Any) -> list[list[str]]:
    """The ids of the events of each customer, in their order."""
    with Writer(shop.database) as writer:
        streams = [writer.stream("Customer", f"C-{n}") for n in range(CUSTOMERS)]
        return [[str(event.event_id) for event in stream] for stream in streams]


@on_rabbitmq
def test_each_task_arrives_whoever_is_killed_and_its_id_is_that_of_the_event(
    shop: Any, url: str, rabbitmq: RabbitMqServer, programs: Programs
) -> None:
    relay, worker = programs.relay(), programs.worker()
    place_orders(shop, 0, ORDERS)
    wait_until(lambda: len(bills(url)) > 10)
    programs.kill(relay)
    relay = programs.relay()
    wait_until(lambda: len(bills(url)) > 40)
    programs.kill(worker)
    worker = programs.worker()
    place_orders(shop, ORDERS, 2 * ORDERS)
    rabbitmq.kill()
    rabbitmq.start()
    wait_until(lambda: len(bills(url)) == 2 * ORDERS, 120)

    tasks = [task for of_customer in event_ids(shop) for task in of_customer]
    assert sorted(task for _, _, task in bills(url)) == sorted(tasks)
    assert {order for order, _, _ in bills(url)} == {f"O-{n}" for n in range(2 * ORDERS)}


@on_rabbitmq
def test_one_process_runs_the_tasks_of_a_customer_in_the_order_of_their_events(
    shop: Any, url: str, programs: Programs
) -> None:
    place_orders(shop, 0, ORDERS)
    programs.relay()
    worker = programs.worker(1)
    wait_until(lambda: len(bills(url)) > 20)
    programs.kill(worker)
    programs.worker(1)
    wait_until(lambda: len(bills(url)) == ORDERS, 120)

    run = [[task for _, of, task in bills(url) if of == f"C-{n}"] for n in range(CUSTOMERS)]
    assert run == event_ids(shop)


@on_rabbitmq
@pytest.mark.anyio
async def test_a_queue_that_is_gone_is_unavailable_and_then_made_again(
    shop: Any, rabbitmq: RabbitMqServer, programs: Programs
) -> None:
    assert programs
    async with opened(shop.app) as sink:
        assert await published(sink, [a_task()]) == [Delivered()]
        rabbitmq.ctl("delete_queue", "celery")
        (outcome,) = await published(sink, [a_task()])
        assert isinstance(outcome, Unavailable)
        assert "NO_ROUTE" in outcome.error
        assert await published(sink, [a_task()]) == [Delivered()]
        with rabbitmq.frozen(), pytest.raises(SinkUnavailable):
            await published(sink, [a_task()])
        await deliver(sink, [a_task()])


@on_rabbitmq
@pytest.mark.anyio
async def test_a_full_queue_refuses_one_task_and_answers_for_no_other(
    shop: Any, rabbitmq: RabbitMqServer, programs: Programs
) -> None:
    assert programs
    full = '{"max-length":1,"overflow":"reject-publish"}'
    rabbitmq.ctl("set_policy", "full", "^celery$", full, "--apply-to", "queues")
    try:
        async with opened(shop.app) as sink:
            outcomes = await published(sink, [a_task(f"Customer/{n}") for n in range(3)])
    finally:
        rabbitmq.ctl("clear_policy", "full")

    assert outcomes == [Delivered(), *[Retry("the queue refused the task")] * 2]


@on_rabbitmq
def test_a_task_that_is_sent_after_the_commit_is_lost_and_one_of_the_outbox_is_not(
    programs: Programs,
) -> None:
    programs.relay()
    programs.worker()

    assert programs.side_by_side().splitlines() == [
        "after-commit 50 orders, 5 kills, 5 tasks lost",
        "outbox       50 orders, 5 kills, 0 tasks lost",
    ]


@on_rabbitmq
def test_the_span_of_a_task_is_in_the_trace_of_the_request(
    shop: Any, url: str, broker: str
) -> None:
    provider = TracerProvider()
    with OtlpReceiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        programs = Programs(DATABASE_URL=url, BROKER_URL=broker, **env)
        try:
            programs.relay()
            programs.worker(1)
            with (
                Writer(shop.database, hooks=[TraceFacts(tracer_provider=provider)]) as writer,
                provider.get_tracer("web").start_as_current_span("POST /orders") as request,
            ):
                shop.place(writer, "O-1", "C-1")
            receiver.wait_for(lambda spans: bool({"run/shop.bill"} & {span.name for span in spans}))
        finally:
            programs.end()
        (task,) = [span for span in receiver.spans if span.name == "run/shop.bill"]

    assert task.trace_id.hex() == f"{request.get_span_context().trace_id:032x}"
