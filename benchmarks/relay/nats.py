"""Throughput and latency of the relay to a real NATS server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile
from time import perf_counter, sleep
from typing import Any, NamedTuple
from uuid import uuid4

import nats
import psycopg
from benchmarks.nemesis.world import messages
from benchmarks.sample_event import event
from benchmarks.telemetry import Encoded, traced

from dsql_outbox.observability import Hook
from dsql_outbox.publisher import open_sink
from dsql_outbox.testing import EmbeddedPostgres, NatsServer

from .drain import drain_by_relay
from .rows import Rows, arrive, fill, new_database

_WINDOW = 256
_HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": str(uuid4()),
    "ce-source": "/dsql-outbox",
    "ce-type": "CarMoved",
    "ce-datacontenttype": "application/json",
    "ce-time": "2025-06-01T10:00:00+00:00",
    "ce-entities": "Car/CAR-123@1",
    "ce-subject": "Car/CAR-123",
    "ce-partitionkey": "Car/CAR-123",
    "ce-sequence": "1",
    "ce-position": "1795545266456405",
    "ce-leaseepoch": "1",
}
"""The headers of a message as the relay sends it, so that nats-py sends the same."""

STREAM = "stream=EVENTS"
_TICK = 0.05  # seconds between arrivals
PATIENCE = 120.0  # seconds to wait for the last delivery


def nats_rates(
    server: EmbeddedPostgres, broker: NatsServer, rows: int, rounds: int
) -> dict[str, list[float]]:
    """Messages per second by nats-py's own publish_async and by the relay, in turn.

    The messages of a subject are once far apart and once next to each other.
    """
    url = new_database(server, "nats_rate")
    rates: dict[str, list[float]] = {"nats-py": [], "apart": [], "in a row": []}
    for _ in range(rounds):
        rates["nats-py"].append(rows / asyncio.run(_nats_py(broker.url, rows)))
        for name in ("apart", "in a row"):
            fill(url, Rows(rows, per_key=10, together=name == "in a row"))
            rates[name].append(asyncio.run(_relay(url, broker.url)))
    return rates


class Arrival(NamedTuple):
    """The delivery of events that arrived at a constant rate; times in seconds.

    `rate` is the events per second that were inserted, `delivered` the part of them that
    the broker has, `late` the time from the last arrival to the last delivery.
    """

    rate: float
    delivered: float
    late: float
    p99: float


def arrival(server: EmbeddedPostgres, broker: NatsServer, a_second: int, seconds: float) -> Arrival:
    """Insert events at a constant rate while two publishers relay them."""
    url = new_database(server, "arriving")
    words = ["publish", "--database", url, "--sink", f"{broker.url}?{STREAM}"]
    words += ["--listen", "127.0.0.1:0"]  # with metrics
    asyncio.run(_emptied(broker.url))
    with ExitStack() as stack:
        for _ in range(2):
            log = stack.enter_context(TemporaryFile())
            command = [sys.executable, "-m", "dsql_outbox", *words]
            process = stack.enter_context(subprocess.Popen(command, stderr=log))
            stack.callback(process.terminate)
            while not os.pread(log.fileno(), 1, 0):  # the first log line says that it relays
                sleep(0.05)
        count, last_at = _arrive(url, a_second, seconds)
        _wait_until_empty(url)
    first = asyncio.run(_first_deliveries(broker.url))
    delays = sorted(at - committed for committed, at in first.values())
    late = max(0.0, max(at for _, at in first.values()) - last_at)
    print(f"  {count:,} arrived at {count / seconds:,.0f} a second, {len(first):,} delivered")
    print(f"  commit to stored: p50 {part(delays, 0.5):.3f} s, p99 {part(delays, 0.99):.3f} s")
    return Arrival(count / seconds, len(first) / count, late, part(delays, 0.99))


async def _nats_py(broker: str, messages: int) -> float:
    client: Any = await nats.connect(broker)
    jetstream = client.jetstream(publish_async_max_pending=_WINDOW)
    await _ensure_stream(jetstream)
    payloads = [event(f"CAR-{n}", n) for n in range(messages)]
    began = perf_counter()
    for payload in payloads:
        headers = {"Nats-Msg-Id": str(uuid4()), **_HEADERS}
        await jetstream.publish_async("events.CarMoved", payload, headers=headers)
    await jetstream.publish_async_completed()
    took = perf_counter() - began
    await client.close()
    return took


def traced_rates(
    server: EmbeddedPostgres, broker: NatsServer, rows: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Messages per second by the relay with metrics, no row and every row traced, in turn.

    Raises `RuntimeError` if spans were lost.
    """
    url = new_database(server, "nats_traced")
    plain: list[float] = []
    with_spans: list[float] = []
    for _ in range(rounds):
        fill(url, Rows(rows))
        plain.append(asyncio.run(_relay(url, broker.url)))
        fill(url, Rows(rows, flags="01"))
        encoded = Encoded()
        with traced(encoded) as (_, hook):
            with_spans.append(asyncio.run(_relay(url, broker.url, hook)))
        if encoded.spans != 2 * rows:
            raise RuntimeError(f"{2 * rows - encoded.spans:,} of {2 * rows:,} spans were lost")
    return plain, with_spans


async def _relay(url: str, broker: str, *hooks: Hook) -> float:
    async with open_sink(f"{broker}?{STREAM}") as sink:
        return (await drain_by_relay(url, sink, hooks=hooks)).rate


def _arrive(url: str, a_second: int, seconds: float) -> tuple[int, float]:
    """Insert `a_second` events per second for `seconds`.

    Returns their number, and the time of the last in seconds since the epoch.
    """
    each = round(a_second * _TICK / 10) * 10
    count = 0
    with psycopg.connect(url, autocommit=True) as connection:
        began = perf_counter()
        while (now := perf_counter() - began) < seconds:
            arrive(connection, Rows(each, per_key=10, together=True, name=f"CAR-{count}-"))
            count += each
            sleep(max(0.0, count / a_second - now))
        ((last,),) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
    return count, last


def _wait_until_empty(url: str) -> None:
    """Wait until the outbox is empty, for `PATIENCE` seconds; the caller checks the result."""
    deadline = perf_counter() + PATIENCE
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT FROM outbox.outbox LIMIT 1").fetchone() is not None:
            if perf_counter() > deadline:
                return
            sleep(0.05)


async def _first_deliveries(broker: str) -> dict[str, tuple[float, float]]:
    """The time of the commit and of the first delivery per event id, in seconds since the epoch."""
    found: dict[str, tuple[float, float]] = {}
    async for message in messages(broker, "EVENTS"):
        stored = message.metadata.timestamp.timestamp()
        committed = int(message.headers["ce-position"]) / 1e6
        found.setdefault(message.headers["ce-id"], (committed, stored))
    return found


async def _emptied(broker: str) -> None:
    client: Any = await nats.connect(broker)
    await _ensure_stream(client.jetstream())
    await client.jetstream().purge_stream("EVENTS")
    await client.close()


async def _ensure_stream(jetstream: Any) -> None:
    await jetstream.add_stream(
        name="EVENTS", subjects=["events.>"], duplicate_window=120, allow_atomic=True
    )


def part(values: Sequence[float], share: float) -> float:
    """The value below which a `share` (0 to 1) of `values` lies; `values` must be sorted."""
    return values[min(len(values) - 1, int(share * len(values)))]
