"""A consumer reads from each broker what the publisher sent."""

import pytest
from msgspec.structs import replace
from tests.support.brokers.kafka_reader import read_all
from tests.support.brokers.readable_brokers import KafkaBroker, NatsBroker, SqsBroker
from tests.support.brokers.redis_server import RedisBroker

from dsql_outbox.inbox import Received, from_kafka, from_nats, from_redis, from_sqs
from dsql_outbox.outbox import Message, UnreadableMessage
from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.testing.sink_contract.readable_broker import ReadableBroker
from dsql_outbox.testing.sink_contract.sent_messages import new_message, published

pytestmark = pytest.mark.anyio


CONTENTS = [
    ("application/json", b'{"n":1}'),
    ("application/avro", b"\0\0\0\0\x07\xff\n{"),
    ("text/plain; charset=utf-8", "Zoë\n".encode()),
]
of_each_content = pytest.mark.parametrize("content", CONTENTS, ids=["json", "avro", "text"])
Content = tuple[str, bytes]


@of_each_content
async def test_nats(nats_broker: NatsBroker, content: Content) -> None:
    sent = await put(nats_broker, content)
    async with nats_broker.jetstream() as jetstream:
        found = await jetstream.get_msg("EVENTS", seq=1)
    assert from_nats(found) == wanted(sent)


@of_each_content
async def test_kafka(kafka_broker: KafkaBroker, content: Content) -> None:
    sent = await put(kafka_broker, content)
    (found,) = read_all(kafka_broker.bootstrap, kafka_broker.behind)
    assert from_kafka(found) == wanted(sent)


async def test_kafka_deletes(kafka_broker: KafkaBroker) -> None:
    sent = new_message(position="20", previousposition="10")
    async with kafka_broker.open() as sink:
        await published(sink, [replace(sent, is_deletion=True, payload=b"")])
    (found,) = read_all(kafka_broker.bootstrap, kafka_broker.behind)
    received = from_kafka(found)
    assert (received.id, received.is_deletion, received.data) == (sent.event_id, True, b"")
    with pytest.raises(UnreadableMessage, match="is_deletion"):
        received.json()


@of_each_content
async def test_redis(redis_broker: RedisBroker, content: Content) -> None:
    sent = await put(redis_broker, content)
    ((stream, [(_, found)]),) = redis_broker.server.client.xread({sent.topic: 0})
    assert from_redis(stream, found) == wanted(sent)


@of_each_content
async def test_sqs(sqs_broker: SqsBroker, content: Content) -> None:
    sent = await put(sqs_broker, content)
    (found,) = await sqs_broker.received()
    assert from_sqs(found) == wanted(sent)
    assert from_sqs(as_lambda_gives_it(found)) == wanted(sent)


async def put(broker: ReadableBroker, content: Content) -> Message:
    content_type, payload = content
    places = {"position": "20", "previousposition": "10", "replay": "2"}
    message = new_message("Loan/café, 50%25", payload, datacontenttype=content_type, **places)
    async with broker.open() as sink:
        await published(sink, [message])
    return message


def wanted(sent: Message) -> Received:
    return Received(
        id=sent.event_id,
        dedupe_id=sent.dedupe_id,
        source=sent.headers["source"],
        topic=sent.topic,
        subject_type="Loan",
        subject_id="café, 50%",
        position=20,
        previous_position=10,
        replay=2,
        trace={name: sent.headers[name] for name in TRACE_HEADERS if name in sent.headers},
        headers={name: text for name, text in sent.headers.items() if name not in TRACE_HEADERS},
        data=sent.payload,
    )


def as_lambda_gives_it(message: dict) -> dict:  # type: ignore[type-arg]
    attributes = {
        name: {"stringValue": found["StringValue"], "dataType": found["DataType"]}
        for name, found in message["MessageAttributes"].items()
    }
    return {"body": message["Body"], "messageAttributes": attributes}
