"""The page of the message, and its schemas, beside what each sink sends."""

import json
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from tests.support.brokers.kafka_reader import read_all
from tests.support.brokers.readable_brokers import (
    EventBridgeBroker,
    FileBroker,
    KafkaBroker,
    NatsBroker,
    SnsBroker,
    SqsBroker,
)
from tests.support.brokers.redis_server import RedisBroker
from tests.support.checkout import ROOT
from tests.support.outbox_databases import OutboxDatabases

from dsql_outbox.outbox import Database, Entity, Event, Message
from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import MemorySink
from dsql_outbox.testing.sink_contract import ReadableBroker, published
from dsql_outbox.writer import Writer, WriterSettings

pytestmark = pytest.mark.anyio

PAGE = (ROOT / "docs/message.md").read_text()
FOLDER = ROOT / "docs/message"
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

EVENT = Event.new(
    "UserRegistered",
    [Entity("User", "eu:7", {"plan": "free"})],
    name="User Registered",
    id=UUID("5f0c6a1e-6c3e-4a0a-9f43-2d8c1a5b7e90"),
    created_date=datetime(2026, 11, 24, 10, 30, tzinfo=UTC),
    headers={"tenant": "acme"},
)


def schema(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((FOLDER / f"{name}.schema.json").read_text()))


def shown(value: object) -> str:
    """JSON as the page shows it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return found


async def relayed(database: Database, *events: Event) -> list[Message]:
    """The messages of these events, as the relay makes them."""
    with Writer(database, WriterSettings(source="/shop")) as writer:
        for event in events:
            writer.write(event)
    sink = MemorySink()
    await Publisher(database, sink).run(until_empty=True)
    return sink.messages


@pytest.fixture
def database(outbox_url: str) -> Database:
    """A database with outbox tables."""
    return Database(outbox_url)


@pytest.fixture(scope="module")
def message(outbox_databases: OutboxDatabases) -> Message:
    """The message of the page. What differs from run to run has the value of the page."""
    with outbox_databases.lent(shards=16) as url:
        (found,) = anyio.run(relayed, Database(url), EVENT)
    fixed = {"position": "1795516200123456", "leaseepoch": "3"}
    assert fixed.keys() <= found.headers.keys()
    return msgspec.structs.replace(found, headers=found.headers | fixed | TRACE)


@pytest.mark.usefixtures("message")
def test_the_event_is_shown() -> None:
    assert EVENT.to_json().decode() in PAGE


def test_the_attributes_are_shown(message: Message) -> None:
    schema("attributes").validate(message.headers)
    for name, value in message.headers.items():
        assert f"| `{name}` | `{value}` |" in PAGE


async def test_nats_is_shown(nats_broker: NatsBroker, message: Message) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await published(sink, [message])
        stored = await jetstream.get_msg("EVENTS", seq=1)
    wire = {"subject": stored.subject, "headers": dict(stored.headers)}
    assert shown(wire) in PAGE
    assert stored.data == EVENT.to_json()


async def test_kafka_is_as_the_page_says(kafka_broker: KafkaBroker, message: Message) -> None:
    async with kafka_broker.open() as sink:
        await published(sink, [message])
    (stored,) = read_all(kafka_broker.bootstrap)
    headers = {name: value.decode() for name, value in stored.headers() or [] if value is not None}
    own = {"datacontenttype": "content-type", "traceparent": "traceparent"}
    wire = {own.get(name, f"ce_{name}"): value for name, value in message.headers.items()}
    assert headers == {"dedupe-id": message.dedupe_id, **wire}
    assert (stored.topic(), stored.key()) == (message.topic, message.key.encode())
    assert stored.value() == EVENT.to_json()
    assert "headers `ce_NAME`. `datacontenttype` is `content-type` | header `dedupe-id`" in PAGE


def nats_headers() -> dict[str, str]:
    """The headers of NATS that the page shows, which `test_nats_is_shown` compares."""
    found: dict[str, str] = next(
        value["headers"]
        for value in map(json.loads, blocks("json"))
        if "Nats-Msg-Id" in value.get("headers", {})
    )
    return found


async def test_redis_has_the_headers_of_nats(redis_broker: RedisBroker, message: Message) -> None:
    async with redis_broker.open() as sink:
        await published(sink, [message])
    ((stream, [(_, entry)]),) = redis_broker.server.client.xread({message.topic: 0})
    assert entry.pop(b"payload") == EVENT.to_json()
    fields = {name.decode(): value.decode() for name, value in entry.items()}
    headers = nats_headers()
    assert fields == {"dedupe-id": headers.pop("Nats-Msg-Id"), **headers}
    assert stream.decode() == message.topic


def aws(found: Any) -> dict[str, Any]:
    names = ("MessageGroupId", "MessageDeduplicationId")
    attributes = found["MessageAttributes"]
    return {name: found["Attributes"][name] for name in names} | {
        "MessageAttributes": {name: attributes[name]["StringValue"] for name in sorted(attributes)}
    }


async def test_sqs_is_shown(sqs_fifo_broker: SqsBroker, message: Message) -> None:
    async with sqs_fifo_broker.open() as sink:
        await published(sink, [message])
    (found,) = await sqs_fifo_broker.received()
    assert shown(aws(found)) in PAGE
    assert found["Body"] == EVENT.to_json().decode()


async def test_sns_is_what_sqs_is(sns_fifo_broker: SnsBroker, message: Message) -> None:
    async with sns_fifo_broker.open() as sink:
        await published(sink, [message])
    (found,) = await sns_fifo_broker.received()
    assert shown(aws(found)) in PAGE
    assert found["Body"] == EVENT.to_json().decode()


async def test_eventbridge_is_as_the_page_says(
    eventbridge_broker: EventBridgeBroker, message: Message
) -> None:
    async with eventbridge_broker.open() as sink:
        await published(sink, [message])
    (found,) = await eventbridge_broker.received()
    body = json.loads(found["Body"])
    assert body["detail"].pop("data") == json.loads(EVENT.to_json())
    own = {"topic": message.topic, "dedupeid": message.dedupe_id}
    assert body["detail"] == message.headers | own
    assert body["source"] == message.headers["source"]
    assert body["detail-type"] == message.headers["type"]
    assert "members of `detail`; `source` and `detail-type` too | `detail.dedupeid`" in PAGE


async def test_json_lines_are_what_nats_has(tmp_path: Path, message: Message) -> None:
    broker = FileBroker(tmp_path / "events.jsonl")
    async with broker.open() as sink:
        await published(sink, [message])
    line = json.loads(broker.path.read_text())
    headers = nats_headers()
    del headers["Nats-Msg-Id"]
    assert line == {
        "topic": message.topic,
        "key": message.key,
        "headers": headers,
        "payload": EVENT.to_json().decode(),
    }


IDS = ["ann@example.com", "Zoë 1", "a/b", "50%40", "a\nb", "😀, x"]


@pytest.mark.parametrize("language", ["python", "js"])
async def test_a_consumer_of_the_page_finds_type_and_id(
    database: Database, tmp_path: Path, language: str
) -> None:
    node = shutil.which("node")
    if language == "js" and node is None:
        pytest.skip("the consumer in JavaScript needs node")
    code, *_ = blocks(language)
    program = tmp_path / {"python": "consumer.py", "js": "consumer.mjs"}[language]
    program.write_text(code)
    broker = FileBroker(tmp_path / "events.jsonl")
    events = [Event.new("CarSold", [Entity("Car/Van", each)], name="Car Sold") for each in IDS]
    async with broker.open() as sink:
        await published(sink, await relayed(database, *events))
    with broker.path.open() as lines:
        command = [sys.executable if language == "python" else str(node), str(program)]
        done = await anyio.run_process(command, stdin=lines)
    read = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(read) == sorted(["CarSold", "Car/Van", each] for each in IDS)


async def test_every_sink_sends_what_the_schemas_say(
    broker: ReadableBroker, database: Database
) -> None:
    """AsyncAPI's document names these schemas: its headers and its payload."""
    events = [
        EVENT,
        Event.new(
            "CarSold", [Entity("Car/Van", "50%, ä\n", {"km": 1}), Entity("A", "b")], name="Car Sold"
        ),
    ]
    sent = await relayed(database, *events)
    async with broker.open() as sink:
        await published(sink, sent)
    stored = await broker.stored()
    assert len(stored) == len(events)
    for each in stored:
        own = {name: each.headers[name] for name in each.headers if name not in TRACE_HEADERS}
        schema("attributes").validate(own)
        schema("event").validate(json.loads(each.payload))


def test_the_schema_refuses(message: Message) -> None:
    wrong = {
        "subject": "User",
        "position": "-1",
        "replay": "r1",
        "time": "2026-11-24 10:30",
        "id": "5F0C6A1E-6C3E-4A0A-9F43-2D8C1A5B7E90",
        "entities": "User/ann@example.com@1",
        "no-name": "x",
    }
    for name, value in [*wrong.items(), ("position", 1)]:
        assert not schema("attributes").is_valid({**message.headers, name: value}), name
    without = {name: value for name, value in message.headers.items() if name != "source"}
    assert not schema("attributes").is_valid(without)


def test_the_asyncapi_document_names_the_schemas(message: Message) -> None:
    """`make asyncapi` lets the tools of AsyncAPI read it."""
    document = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
    (found,) = document["components"]["messages"].values()
    for part in (
        found["headers"],
        found["payload"]["schema"] if "schema" in found["payload"] else found["payload"],
    ):
        assert (FOLDER / part["$ref"]).is_file()
    assert document["channels"]["events"]["address"] == message.topic.replace(
        "UserRegistered", "{eventType}"
    )
