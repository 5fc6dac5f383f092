"""The goals of targets: several brokers and models over one history of events."""

import asyncio
from collections.abc import Sequence
from statistics import quantiles
from time import perf_counter, time_ns

import psycopg
from benchmarks.measure import median_ratio
from benchmarks.relay.drain import SETTINGS, _bounds, drain_by_relay
from benchmarks.relay.rows import Rows, fill, new_database
from benchmarks.sample_event import event
from benchmarks.telemetry import metered
from benchmarks.writer.statement_parameters import SHARDS
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.operations import Targets
from dsql_outbox.outbox import Database, Message, SinkUnavailable
from dsql_outbox.outbox.database.array_literals import plain_array
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.publisher import Answer, Publisher
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

from .conditions import Conditions
from .goal import Goal, Line
from .trial import TrialSink

_TABLE = "CREATE TABLE public.applied (key text, sequence bigint)"
_INSERT = "INSERT INTO public.applied VALUES (%s, %s)"

_A_TRANSACTION = 50
"""Messages of one transaction of a model."""

_OTHERS = 20


class Dead:
    """A sink whose broker is out of reach."""

    system = "null"

    async def publish(self, _messages: Sequence[Message], _answer: Answer, /) -> None:
        raise SinkUnavailable("it is dead")


class Lags(TrialSink):
    """A sink that keeps the seconds from the commit of each message to its arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.lags: list[float] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        now = time_ns()
        self.lags += [(now - message.committed_ns) / 1e9 for message in messages]
        await super().publish(messages, answer)


def dead(conditions: Conditions) -> list[float]:
    """The p99 of a broker beside a dead one, over that without the other one."""
    urls = [new_database(conditions.server, name) for name in ("targets_alone", "targets_dead")]
    asyncio.run(_add(urls[1], "lake"))
    found: list[list[float]] = [[], []]
    for _ in range(conditions.sizes.rounds):
        for is_dead, url in enumerate(urls):
            lags = asyncio.run(_under_load(url, conditions.sizes.seconds, is_dead=bool(is_dead)))
            found[is_dead].append(quantiles(lags, n=100)[98])
    return [median_ratio(found[1], found[0])]


async def _under_load(url: str, seconds: float, *, is_dead: bool) -> list[float]:
    """Write 200 events per second beside the publishers. Returns the lags of the one that works."""
    database, sink, n = Database(url), Lags(), 0
    beside = Publisher(database, Dead(), target="lake") if is_dead else None
    with metered() as metrics:
        async with Publisher(database, sink, hooks=[metrics]), AsyncWriter(database) as writer:
            other = asyncio.create_task(beside.run()) if beside else None
            began = perf_counter()
            while (now := perf_counter() - began) < seconds:
                await writer.write_many([event(f"CAR-{k % 97}", k) for k in range(n, n + 10)])
                n += 10
                await asyncio.sleep(max(0.0, n / 200 - now))
            await sink.until(n)
            if beside and other:
                beside.stop()
                await other
    return sink.lags


def write(conditions: Conditions) -> list[float]:
    """The statements and the round trips of a write, with two targets."""
    url = new_database(conditions.server, "targets_write")
    asyncio.run(_add(url, "lake"))
    with (
        PostgresProxy(url) as proxy,
        Writer(Database(proxy.url), WriterSettings()) as writer,
    ):
        writer.write(event("CAR-1", 0))
        proxy.reset_counts()
        writer.write(event("CAR-1", 1))
        return [len(proxy.statements), proxy.round_trips]


def default(conditions: Conditions) -> list[float]:
    """The drain of the default target beside a second target, over that without one."""
    urls = [new_database(conditions.server, name) for name in ("targets_one", "targets_two")]
    asyncio.run(_add(urls[1], "lake"))
    rows = conditions.sizes.rows
    rates: list[list[float]] = [[], []]
    for _ in range(2 * conditions.sizes.rounds):
        for found, url in zip(rates, urls, strict=True):
            fill(url, Rows(rows))
            found.append(asyncio.run(drain_by_relay(url)).rate)
    return [median_ratio(rates[1], rates[0])]


async def _apply(connection: AsyncConnection, message: Message) -> None:
    await connection.execute(_INSERT, (message.key, int(message.headers["sequence"])))


def model(conditions: Conditions) -> list[float]:
    """The drain of a model with one INSERT per message, over a bare loop of the same work."""
    url = new_database(conditions.server, "targets_model")
    asyncio.run(_only_model(url))
    rows = conditions.sizes.rows // 4
    bare: list[float] = []
    ours: list[float] = []
    for n in range(conditions.sizes.rounds):
        for found, run in ((bare, _bare), (ours, _by_relay)):
            with Writer(Database(url)) as writer:
                writer.write_many(event(f"CAR-{n}-{k}", k) for k in range(rows))
            began = perf_counter()
            asyncio.run(run(url))
            found.append(rows / (perf_counter() - began))
    return [median_ratio(ours, bare)]


async def _by_relay(url: str) -> None:
    with metered() as metrics:
        publisher = Publisher(
            Database(url), settings=SETTINGS, apply=_apply, target="model", hooks=[metrics]
        )
        await publisher.run(until_empty=True)


async def _bare(url: str) -> None:
    """Read, and apply and delete in transactions, on one connection, until nothing is left.

    It is one of the library's, on which psycopg prepares no statement.
    """
    read, delete = statement("outbox_read", "outbox"), statement("outbox_delete", "outbox")
    head = (0, "00000000-0000-0000-0000-000000000000")
    places = dict.fromkeys(range(TARGET_SHARDS, TARGET_SHARDS + SHARDS), head)
    async with await Database(url).connect_async() as connection:
        while True:
            found = await (await connection.execute(read, _bounds(places))).fetchall()
            rows = [row for row in found if row[-1] is None]
            if not rows:
                return
            places |= {row[1]: (row[2], row[3]) for row in found if row[-1] is not None}
            for first in range(0, len(rows), _A_TRANSACTION):
                part = rows[first : first + _A_TRANSACTION]
                async with connection.transaction():
                    keys = {"shards": 1, "positions": 2, "event_ids": 3}
                    await connection.execute(
                        delete,
                        {name: plain_array(row[n] for row in part) for name, n in keys.items()},
                    )
                    for row in part:
                        await connection.execute(_INSERT, (f"{row[5]}/{row[6]}", row[7]))


def sick(conditions: Conditions) -> list[float]:
    """How many of 20 subjects are applied within a second beside one whose function fails."""
    urls = [new_database(conditions.server, f"targets_sick_{n}") for n in range(2)]
    return [asyncio.run(_beside(url, hangs=n == 1)) for n, url in enumerate(urls)]


async def _beside(url: str, *, hangs: bool) -> int:
    await _only_model(url)

    async def apply(connection: AsyncConnection, message: Message) -> None:
        if message.key == "Car/sick":
            if hangs:
                await asyncio.sleep(3600)
            raise ValueError
        await _apply(connection, message)

    database = Database(url)
    async with (
        Publisher(database, apply=apply, target="model"),
        AsyncWriter(database) as writer,
    ):
        await writer.write_many(event("sick", n) for n in range(5))
        await asyncio.sleep(0.5)
        await writer.write_many(event(f"CAR-{n}", n) for n in range(_OTHERS))
        await asyncio.sleep(1)
        async with await psycopg.AsyncConnection.connect(url) as connection:
            found = await connection.execute("SELECT DISTINCT key FROM public.applied")
            return len(await found.fetchall())


async def _add(url: str, name: str) -> None:
    async with Targets(Database(url)) as targets:
        await targets.add(name)


async def _only_model(url: str) -> None:
    async with Targets(Database(url)) as targets:
        await targets.add("model", kind="model")
        await targets.drop("default")
    with psycopg.connect(url) as connection:
        connection.execute(_TABLE)


TARGETS = [
    Line(
        "dead",
        [Goal("p99 of a broker beside one that is dead / alone", 1.2, most=True)],
        dead,
    ),
    Line(
        "write",
        [
            Goal("statements of a write with two targets", 1, most=True),
            Goal("round trips of a write with two targets", 1, most=True),
        ],
        write,
    ),
    Line(
        "default", [Goal("drain of the default target, with a second one / without", 0.97)], default
    ),
    Line("model", [Goal("drain of a model / bare loop of the same work", 0.7)], model),
    Line(
        "sick",
        [
            Goal(f"subjects of {_OTHERS} applied in 1 s beside one whose function raises", _OTHERS),
            Goal(f"subjects of {_OTHERS} applied in 1 s beside one whose function hangs", _OTHERS),
        ],
        sick,
    ),
]
