"""Spans of a publish name the broker and the destination as the conventions say."""

from collections.abc import Mapping
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from tests.support.brokers.readable_brokers import (
    EventBridgeBroker,
    FileBroker,
    KafkaBroker,
    SnsBroker,
    SqsBroker,
)

from dsql_outbox.observability.otel.spans import TraceFacts
from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.relay.traced_sink import TracedSink
from dsql_outbox.testing.sink_contract import ReadableBroker, new_message, published

pytestmark = pytest.mark.anyio

TOPIC = f"events.{uuid4().hex}"


def destination(broker: ReadableBroker) -> Mapping[str, object]:
    """The attributes that the conventions ask for, by what the test knows of its broker."""
    match broker:
        case EventBridgeBroker(bus=name) | SnsBroker(topic=name):
            short = name.rpartition(":")[2].rpartition("/")[2]
        case SqsBroker(queue=short):
            pass
        case _:
            short = TOPIC
    match broker:
        case ReadableBroker(proxy=proxy) if proxy is not None:
            port = proxy.port
        case KafkaBroker(bootstrap=bootstrap):
            port = int(bootstrap.partition(",")[0].rpartition(":")[2])
        case _:
            return {"messaging.destination.name": short}
    place = {"server.address": "127.0.0.1", "server.port": port}
    return {"messaging.destination.name": short, **place}


async def test_a_span_names_the_destination_and_the_broker(broker: ReadableBroker) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with broker.open() as sink:
        traced = TracedSink(sink, [TraceFacts(tracer_provider=provider)], PublisherSettings())
        await published(traced, [new_message(topic=TOPIC)])
    (span,) = [s for s in exporter.get_finished_spans() if s.kind is SpanKind.PRODUCER]
    attributes = dict(span.attributes or {})
    wanted = destination(broker)
    names = ("messaging.destination.name", "server.address", "server.port")
    assert {name: attributes[name] for name in names if name in attributes} == wanted
    assert span.name == f"publish {wanted['messaging.destination.name']}"
    assert attributes["outbox.topic"] == TOPIC
    assert isinstance(broker, FileBroker) or attributes["messaging.system"] == sink.system
