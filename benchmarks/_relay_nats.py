"""The relay to a real NATS server: as fast as its client, and soon enough."""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter, sleep
from typing import Any
from uuid import UUID, uuid4

import nats
import psycopg
from _measure import Target, event, spread
from _nemesis_world import messages
from _relay_drain import SETTINGS
from _relay_rows import Rows, arrive, fill, new_database

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Delivered, Outcome, Publisher, Sink, open_sink
from dsql_outbox.testing import EmbeddedPostgres, NatsServer
from dsql_outbox.writer import AsyncWriter

_WINDOW = 256
_STREAM = "stream=EVENTS"
_TICK = 0.05  # seconds between arrivals
_KEEPS_UP = 1.0  # seconds after the last arrival until the last delivery
_DOORBELLS = ("ring", "wake", "notify")


def rate(server: EmbeddedPostgres, broker: NatsServer, rows: int, rounds: int) -> list[Target]:
    """The relay beside nats-py's own publish_async; a subject's messages apart and in a row."""
    url = new_database(server, "nats_rate")
    rates: dict[str, list[float]] = {"nats-py": [], "apart": [], "in a row": []}
    for _ in range(rounds):
        rates["nats-py"].append(rows / asyncio.run(_nats_py(broker.url, rows)))
        for name in ("apart", "in a row"):
            fill(url, Rows(rows, per_key=10, together=name == "in a row"))
            rates[name].append(rows / asyncio.run(_relay(url, broker.url)))
    targets: list[Target] = []
    for name, found in rates.items():
        print(f"  {name:<10} {spread(found)} messages/s")
        pairs = zip(found, rates["nats-py"], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        targets.append(Target(f"NATS, 10 a subject {name} / publish_async", ratio, 0.8))
    return targets[1:]


def arriving(
    server: EmbeddedPostgres, broker: NatsServer, a_second: int, seconds: float, options: str
) -> list[Target]:
    """Events come all the time, two publishers relay them."""
    url = new_database(server, "arriving")
    words = ["publish", "--database", url, "--sink", f"{broker.url}?{_STREAM}", *options.split()]
    asyncio.run(_emptied(broker.url))
    with ExitStack() as stack:
        for _ in range(2):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "dsql_outbox", *words], stderr=subprocess.DEVNULL
                )
            )
            stack.callback(process.terminate)
        sleep(2)  # they start; the first arrivals shall not wait for Python
        count, last_at = _arrive(url, a_second, seconds)
        _wait_until_empty(url)
    first = asyncio.run(_first_deliveries(broker.url))
    delays = sorted(at - committed for committed, at in first.values())
    late = max(0.0, max(at for _, at in first.values()) - last_at)
    print(f"  {count:,} arrived at {count / seconds:,.0f} a second, {len(first):,} delivered")
    print(f"  commit to stored: p50 {_part(delays, 0.5):.3f} s, p99 {_part(delays, 0.99):.3f} s")
    return [
        Target("arrivals a second, of those asked for", count / seconds / a_second, 0.99),
        Target("delivered, of those that arrived", len(first) / count, 1),
        Target("last delivery after the last arrival", late, _KEEPS_UP, most=True, unit=" s"),
        Target("commit to acknowledgement, p99", _part(delays, 0.99), 0.35, most=True, unit=" s"),
    ]


def doorbell(
    server: EmbeddedPostgres, broker: NatsServer, a_second: int, seconds: float
) -> list[Target]:
    """Writer and publisher in one process: how long from commit to acknowledgement."""
    url = new_database(server, "doorbell")
    delays = sorted(asyncio.run(_write_and_relay(url, broker.url, a_second, seconds)))
    return [
        Target("one process, p50", _part(delays, 0.5) * 1000, 1, most=True, unit=" ms"),
        Target("one process, p99", _part(delays, 0.99) * 1000, 3, most=True, unit=" ms"),
    ]


async def _nats_py(broker: str, messages: int) -> float:
    client: Any = await nats.connect(broker)
    jetstream = client.jetstream(publish_async_max_pending=_WINDOW)
    await _ensure_stream(jetstream)
    payloads = [event(f"CAR-{n}", n) for n in range(messages)]
    began = perf_counter()
    for payload in payloads:
        headers = {"Nats-Msg-Id": str(uuid4())}
        await jetstream.publish_async("events.CarMoved", payload, headers=headers)
    await jetstream.publish_async_completed()
    took = perf_counter() - began
    await client.close()
    return took


async def _relay(url: str, broker: str) -> float:
    async with open_sink(f"{broker}?{_STREAM}") as sink:
        began = perf_counter()
        await Publisher(Database(url), sink, SETTINGS).run(until_empty=True)
        return perf_counter() - began


def _arrive(url: str, a_second: int, seconds: float) -> tuple[int, float]:
    """Insert at that rate; how many, and the time of the last in seconds since the epoch."""
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
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute("SELECT FROM outbox.outbox LIMIT 1").fetchone() is not None:
            sleep(0.05)


async def _first_deliveries(broker: str) -> dict[str, tuple[float, float]]:
    """When each event was committed and when the stream had it first, by id."""
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
    await jetstream.add_stream(name="EVENTS", subjects=["events.>"], duplicate_window=120)


class _Timed:
    """A sink that notes when each message was acknowledged."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.ordered = sink.ordered
        self.system = sink.system
        self.acknowledged: dict[UUID, float] = {}

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
        outcomes = await self._sink.publish(messages)
        now = perf_counter()
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, Delivered):
                self.acknowledged[message.event_id] = now
        return outcomes


async def _write_and_relay(url: str, broker: str, a_second: int, seconds: float) -> list[float]:
    async with open_sink(f"{broker}?{_STREAM}") as opened, AsyncWriter(Database(url)) as writer:
        sink = _Timed(opened)
        publisher = Publisher(Database(url), sink, SETTINGS)
        bell = next((b for n in _DOORBELLS if (b := getattr(publisher, n, None))), None)
        print("  the doorbell rings after each write" if bell else "  no doorbell")
        relaying = asyncio.create_task(publisher.run())
        committed: dict[UUID, float] = {}
        began = perf_counter()
        for n in range(round(a_second * seconds)):
            await asyncio.sleep(max(0.0, began + n / a_second - perf_counter()))
            receipt = await writer.write(event(f"CAR-{n % 50}", n))
            committed[receipt.event_id] = perf_counter()
            if bell is not None:
                bell()
        while committed.keys() - sink.acknowledged.keys():  # noqa: ASYNC110 - a poll is enough
            await asyncio.sleep(0.05)
        publisher.stop()
        await relaying
    # One that was acknowledged before the writer heard of its commit did not wait at all.
    return [max(0.0, sink.acknowledged[each] - at) for each, at in committed.items()]


def _part(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; `values` are sorted."""
    return values[min(len(values) - 1, int(share * len(values)))]
