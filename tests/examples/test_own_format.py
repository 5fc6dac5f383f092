"""examples/own_format: contracts that are read by clients which know nothing of dsql-outbox."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from threading import Event as Signal
from threading import Thread
from typing import Any, Self

import anyio
import nats
import psycopg
import pytest
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from jsonschema import validate
from tests.support.brokers.kafka_mock import MockKafka, mock_kafka
from tests.support.brokers.kafka_reader import read_all
from tests.support.brokers.redis_server import RedisServer
from tests.support.brokers.schema_registry import schema_registry
from tests.support.checkout import ROOT
from tests.support.commands import Command
from tests.support.publisher.running_relays import running, until

from dsql_outbox import Database, Entity, Event, Message, Publisher, Writer, open_sink
from dsql_outbox.inbox import Inbox, from_kafka, from_redis
from dsql_outbox.operations import Targets
from dsql_outbox.publisher.message_map import wire_message
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import deliver, new_message

pytestmark = pytest.mark.anyio

FOLDER = ROOT / "examples/own_format"
TOPIC = "events.OrderPlaced"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("order_json", "order_avro", "faststream_redis"):
        sys.modules.pop(name, None)


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    """A Kafka of one broker, which makes topics by itself."""
    with mock_kafka(1) as broker:
        yield broker


def placed(order: str, total: str) -> Event:
    return Event.new("OrderPlaced", [Entity("Order", order, {"total": total})])


def paid(order: str) -> Event:
    return Event.new("OrderPaid", [Entity("Order", order, {"by": "card"})])


def totals(count: int) -> dict[str, str]:
    """Orders with their totals, none of which is ASCII only."""
    return {f"Bäckerei-{n}": f"{n}.50" for n in range(count)}


def write(database: Database, orders: dict[str, str]) -> None:
    with Writer(database) as writer:
        for order, total in orders.items():
            writer.write(placed(order, total))
            writer.write(paid(order))


async def published(url: str, sink: str, function: str, **env: str) -> None:
    """Relay all messages by the command line, as the page says."""
    words = ["publish", "--database", url, "--sink", sink, "--map", function, "--until-empty"]
    with Command(*words, env={"PYTHONPATH": str(FOLDER), **env}) as publisher:
        done = await anyio.to_thread.run_sync(publisher.finish)
    assert done.code == 0, done.err


@pytest.mark.slow
async def test_a_consumer_gets_the_json_that_it_expects(url: str, nats_server: NatsServer) -> None:
    orders = totals(20)
    write(Database(url), orders)
    sink = f"{nats_server.url}?stream=EVENTS"

    await published(url, sink, "order_json:to_order")

    contract = {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "total": {"type": "string"}},
        "required": ["order_id", "total"],
        "additionalProperties": False,
    }
    client: Any = await nats.connect(nats_server.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        subscription = await client.jetstream().pull_subscribe(TOPIC, durable="billing")
        found = [json.loads(each.data) for each in await subscription.fetch(100, timeout=10)]
        stream = await client.jetstream().stream_info("EVENTS")
    finally:
        await client.close()
    for order in found:
        validate(order, contract)
    assert {order["order_id"]: order["total"] for order in found} == orders
    assert stream.state.messages == len(found) == len(orders), "nothing else was sent"


async def test_a_topic_is_taken_over_with_its_keys_headers_avro_and_deletions(
    url: str, kafka: MockKafka
) -> None:
    """As Spring and the registry's deserializer read them, by key in order."""
    orders, cancelled = totals(20), list(totals(5))
    write(Database(url), orders)
    with Writer(Database(url)) as writer:
        for order in cancelled:
            writer.write(Event.new("OrderCancelled", [Entity("Order", order, {})]))
    sink = f"kafka://{kafka.bootstrap}"

    with schema_registry() as registry:
        await published(url, sink, "order_avro:to_avro", SCHEMA_REGISTRY_URL=registry)
        with SchemaRegistryClient({"url": registry}) as client:
            deserialize = AvroDeserializer(client)
            messages = read_all(kafka.bootstrap)
            context = SerializationContext("prod.orders", MessageField.VALUE)
            table: dict[str, dict[str, str] | None] = {}
            for each in messages:  # a compacted topic keeps the last one of a key
                table[(each.key() or b"").decode()] = deserialize(each.value(), context)

    assert {each.topic() for each in messages} == {"prod.orders"}
    assert len(messages) == len(orders) + len(cancelled)
    kept = {order: {"order_id": order, "total": orders[order]} for order in orders}
    assert table == kept | dict.fromkeys(cancelled)
    for each in messages:
        headers = dict(each.headers() or [])
        assert headers["__TypeId__"] == b"shop.OrderPlaced"
        assert headers["correlation-id"] == headers["ce_id"]
        if each.value() is not None:
            assert headers["content-type"] == b"application/avro"


async def test_faststream_reads_its_envelope_from_redis() -> None:
    """As its parser of streams does (0.7.8): the field, then `data` and `headers` of its JSON."""
    from faststream_redis import to_faststream  # noqa: PLC0415 - its folder is put on the path

    sent = new_message("Order/ORD-7", '{"total":"é"}'.encode(), position="2", previousposition="1")
    made = wire_message(to_faststream, sent)
    assert isinstance(made, Message)
    with RedisServer() as server:
        async with open_sink(f"{server.url}?field=__data__") as sink:
            await deliver(sink, [made])
        ((stream, [(_, entry)]),) = server.client.xread({sent.topic: 0})
    envelope = json.loads(entry[b"__data__"])
    assert envelope["data"].encode() == sent.payload
    assert envelope["headers"] == {
        "traceparent": sent.headers["traceparent"],
        "content-type": "application/json",
        "correlation_id": str(sent.event_id),
    }
    assert from_redis(stream, entry, field="__data__").data == made.payload


@pytest.mark.slow
async def test_without_a_registry_nothing_is_relayed(url: str, kafka: MockKafka) -> None:
    write(Database(url), totals(1))
    sink = f"kafka://{kafka.bootstrap}"
    words = ["publish", "--database", url, "--sink", sink, "--map", "order_avro:to_avro"]
    env = {"PYTHONPATH": str(FOLDER), "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1"}

    with Command(*words, "--until-empty", env=env) as publisher:
        done = await anyio.to_thread.run_sync(publisher.finish)

    assert done.code != 0
    assert "127.0.0.1" in done.err
    assert read_all(kafka.bootstrap) == []


class Billing:
    """A consumer that knows one form of the contract. Its inbox counts each order once."""

    def __init__(self, url: str, kafka: MockKafka, topic: str, field: str) -> None:
        self._url, self._topic, self._field = url, topic, field
        self._settings = {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": f"billing-{field}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 100,
            "allow.auto.create.topics": True,
            "log_level": 0,
        }
        self._is_over = Signal()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        consumer = Consumer(self._settings)
        consumer.subscribe([self._topic])
        with Inbox(Database(self._url), "billing") as inbox:
            while not self._is_over.is_set():
                message = consumer.poll(0.05)
                if message is not None and message.error() is None:
                    received = from_kafka(message)
                    inbox.once(received, partial(self._bill, received.json()))
        consumer.close()

    def _bill(self, order: dict[str, str], connection: psycopg.Connection) -> None:
        assert order.keys() == {"order_id", self._field}
        connection.execute(
            "INSERT INTO public.bills VALUES (%s, %s)", (order["order_id"], order[self._field])
        )


class Shop:
    """Writes orders all the time, from its own thread."""

    def __init__(self, database: Database) -> None:
        self.orders: dict[str, str] = {}
        self._database = database
        self._is_over = Signal()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        with Writer(self._database) as writer:
            while not self._is_over.wait(0.01):
                order, total = f"ORD-{len(self.orders)}", f"{len(self.orders)}.25"
                writer.write(placed(order, total))
                writer.write(paid(order))
                self.orders[order] = total


async def test_a_field_is_renamed_while_orders_are_written_and_none_is_lost(
    url: str, kafka: MockKafka
) -> None:
    from order_json import to_order, to_order_2  # noqa: PLC0415 - its folder is put on the path

    database, sink = Database(url), f"kafka://{kafka.bootstrap}"
    with psycopg.connect(url, autocommit=True) as made:
        made.execute("CREATE TABLE public.bills (order_id text, amount numeric)")
    old = Publisher(database, sink, map=to_order)
    new = Publisher(database, sink, map=to_order_2, target="v2")

    def billed() -> set[str]:
        return {order for (order,) in sql.execute("SELECT order_id FROM public.bills").fetchall()}

    with (
        psycopg.connect(url, autocommit=True) as sql,
        Billing(url, kafka, f"v2.{TOPIC}", "amount"),
        Shop(database) as shop,
    ):
        async with Targets(database) as targets, anyio.create_task_group() as tasks:
            async with running(old):
                with Billing(url, kafka, TOPIC, "total"):
                    await until(lambda: len(billed()) > 20)
                    await targets.add("v2")
                    tasks.start_soon(new.run)
                    # The new target may lack these, and the one that is being written.
                    early = {f"ORD-{n}" for n in range(len(shop.orders) + 1)}
                    await until(lambda: early <= billed())
            await targets.drop("default")
            both = len(shop.orders)
            await until(lambda: len(shop.orders) > both + 20)
            shop.stop()
            await until(lambda: shop.orders.keys() <= billed())
            new.stop()
        bills = sql.execute("SELECT order_id, amount::text FROM public.bills").fetchall()

    assert len(early) > 20
    assert sorted(bills) == sorted(shop.orders.items()), "each order was billed once"
