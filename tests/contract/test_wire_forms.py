"""Key and headers of a map, as each broker gives them to a consumer that knows nothing of us."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.brokers.kafka_reader import read_all
from tests.support.brokers.readable_brokers import (
    EventBridgeBroker,
    FileBroker,
    KafkaBroker,
    NatsBroker,
    SqsBroker,
)
from tests.support.brokers.redis_server import RedisBroker

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import TOMBSTONE, Delivered, Rejected, WireForm
from dsql_outbox.publisher.message_map import wire_message
from dsql_outbox.testing.sink_contract import ReadableBroker, new_message, published

pytestmark = pytest.mark.anyio

HEADERS = {"correlation-id": 'C 7%"x"', "__TypeId__": "shop.Order", "x-tenant-id": "acme"}


async def put(broker: ReadableBroker, form: WireForm) -> Message:
    made = wire_message(lambda _: form, new_message("Order/ORD-7"))
    assert isinstance(made, Message)
    async with broker.open() as sink:
        assert await published(sink, [made]) == [Delivered()]
    return made


def own(headers: dict[str, Any]) -> dict[str, Any]:
    """Those that are not ours."""
    return {name: headers[name] for name in headers if name in HEADERS}


async def test_kafka(kafka_broker: KafkaBroker) -> None:
    await put(kafka_broker, WireForm(b"\0", headers=HEADERS, key="ORD-7", topic="prod.orders"))
    await put(kafka_broker, WireForm(TOMBSTONE, headers=HEADERS, key="ORD-7", topic="prod.orders"))

    found = read_all(kafka_broker.bootstrap, kafka_broker.behind)
    assert [(m.topic(), m.key(), m.value()) for m in found] == [
        ("prod.orders", b"ORD-7", b"\0"),
        ("prod.orders", b"ORD-7", None),
    ]
    for each in found:
        texts = {name: value.decode() for name, value in each.headers() or [] if value is not None}
        assert own(texts) == HEADERS
    assert "content-type" not in texts


async def test_nats(nats_broker: NatsBroker) -> None:
    await put(nats_broker, WireForm(b"\0", headers=HEADERS))
    async with nats_broker.jetstream() as jetstream:
        found = await jetstream.get_msg("EVENTS", seq=1)
    assert own(found.headers) == HEADERS


async def test_redis(redis_broker: RedisBroker) -> None:
    sent = await put(redis_broker, WireForm(b"\0", headers=HEADERS))
    ((_, [(_, found)]),) = redis_broker.server.client.xread({sent.topic: 0})
    assert own({name.decode(): value.decode() for name, value in found.items()}) == HEADERS


async def test_sqs(sqs_fifo_broker: SqsBroker) -> None:
    await put(sqs_fifo_broker, WireForm(b"\0", headers=HEADERS, key="ORD-7"))
    (found,) = await sqs_fifo_broker.received()
    assert found["Attributes"]["MessageGroupId"] == "ORD-7"
    texts = {name: each["StringValue"] for name, each in found["MessageAttributes"].items()}
    assert own(texts) == HEADERS


async def test_json_lines(tmp_path: Path) -> None:
    broker = FileBroker(tmp_path / "events.jsonl")
    await put(broker, WireForm(TOMBSTONE, headers=HEADERS, key="ORD-7"))
    line = json.loads(broker.path.read_text())
    assert (line["key"], line["payload"]) == ("ORD-7", None)
    assert own(line["headers"]) == HEADERS


async def test_what_has_no_room_for_headers_rejects_them(
    sqs_broker: SqsBroker, eventbridge_broker: EventBridgeBroker
) -> None:
    many = {f"n{n}": "x" for n in range(8)}
    for broker, reason in (sqs_broker, "limit of SQS of 10"), (eventbridge_broker, "no headers"):
        made = replace(new_message(), wire_headers=many)
        async with broker.open() as sink:
            (outcome,) = await published(sink, [made])
        assert isinstance(outcome, Rejected)
        assert reason in outcome.error
