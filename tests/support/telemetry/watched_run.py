"""One run that is watched by all means: spans by OTLP, metrics by Prometheus' format.

A writer here, behind a proxy that makes conflicts; a publisher that is a process
of its own; real NATS; and a consumer here that goes on with the trace.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import nats
import psycopg
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from tests.support.commands import Command
from tests.support.operations.forgotten_events import forget
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.telemetry.received_spans import view_received
from tests.support.waiting import wait_until
from tests.support.writer import workload_s

from dsql_outbox.cli.demo.span_tree import SpanView
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.metering import measure
from dsql_outbox.observability.otel.spans import TraceFacts
from dsql_outbox.outbox import Database
from dsql_outbox.testing import OtlpReceiver
from dsql_outbox.writer import Writer, WriterSettings

from .promql import Scrape, scrape
from .scrapes import base_url, get, samples

PLAIN = 5
"""Events that meet no conflict."""

CONFLICTS = 2
"""Conflicts of the event that is looked at."""


class Watched(NamedTuple):
    """What a run left behind."""

    event_id: UUID
    spans: list[SpanView]
    first: Scrape
    last: Scrape
    slowest: float
    """Seconds of the slowest write that met no conflict."""

    @property
    def trace(self) -> list[SpanView]:
        """The spans of the trace that the event's write began."""
        (write,) = (
            span
            for span in self.spans
            if span.name == "outbox.write"
            and span.attributes["outbox.event.id"] == str(self.event_id)
        )
        return [span for span in self.spans if span.trace_id == write.trace_id]


@contextmanager
def spans_to(receiver: OtlpReceiver, service: str) -> Iterator[TracerProvider]:
    """A provider whose spans go to `receiver`; all are there after the block."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(f"{receiver.endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def run(url: str, broker: str, receiver: OtlpReceiver) -> Watched:
    """Forget, write, conflict, relay and consume on a database with tables and an empty NATS."""
    asyncio.run(forget(Database(url)))
    env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.endpoint}/v1/traces"}
    words = ("--database", url, "--sink", f"{broker}?stream=EVENTS", "--listen", "127.0.0.1:0")
    with (
        Command("publish", *words, env=env) as publisher,
        exporting() as exports,
        spans_to(receiver, "writer") as spans,
    ):
        meters = measure(exports, "writer", prometheus=True)
        assert meters.exposition is not None
        metrics = f"{base_url(publisher)}/metrics"
        wait_until(partial(_has, metrics, "outbox_relay_sink_available", 1), timeout=20)
        wait_until(partial(_has, metrics, "outbox_forget_age_seconds", 0), timeout=20)
        first = scrape(monotonic(), meters.exposition(), get(metrics)[1])
        event_id, slowest = _write(url, TraceFacts(spans), *meters.hooks)
        delivered = "outbox_publish_messages_total{delivered}"
        wait_until(partial(_has, metrics, delivered, PLAIN + 1), timeout=20)
        wait_until(partial(_has, metrics, "outbox_backlog_age_seconds", 0), timeout=20)
        last = scrape(monotonic(), meters.exposition(), get(metrics)[1])
        with spans_to(receiver, "consumer") as consumer:
            asyncio.run(_consume(broker, event_id, consumer))
        publisher.signal(signal.SIGTERM)
        assert publisher.finish().code == 0
    return Watched(event_id, view_received(receiver.spans), first, last, slowest)


def _write(url: str, *hooks: Any) -> tuple[UUID, float]:
    with (
        OutboxProxy(url) as proxy,
        Writer(proxy.database, WriterSettings.origin(), hooks=hooks) as writer,
    ):
        times = [monotonic()]
        for _ in range(PLAIN):
            writer.write(workload_s.car_created())
            times.append(monotonic())
        proxy.conflicts(CONFLICTS)
        receipt = writer.write(workload_s.car_created())
        proxy.conflicts(4)
        with suppress(psycopg.Error):  # one whose retries run out
            writer.write(workload_s.car_created())
    return receipt.event_id, max(end - start for start, end in pairwise(times))


def _has(metrics: str, name: str, least: float) -> bool:
    return samples(get(metrics)[1]).get(name, -1) >= least


async def _consume(broker: str, event_id: UUID, provider: TracerProvider) -> None:
    """Take the event's message, and go on with the trace that came in its headers."""
    client: Any = await nats.connect(broker)
    try:
        jetstream = client.jetstream()
        subscription = await jetstream.subscribe("events.>", stream="EVENTS", ordered_consumer=True)
        for _ in range(PLAIN + 1):
            message = await subscription.next_msg(timeout=5)
            headers: Mapping[str, str] = message.headers
            if headers["ce-id"] == str(event_id):
                parent = propagate.extract(headers, Context())
                tracer = provider.get_tracer("consumer")
                tracer.start_span(f"process {message.subject}", parent, SpanKind.CONSUMER).end()
    finally:
        await client.close()
