"""What the tests of the relay share; each brings a `database` of its own."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import anyio
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.operations import Targets
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.outbox import Database, Entity, Event, Message
from dsql_outbox.outbox.unit_of_work.lasting import LastingConnection
from dsql_outbox.publisher import Publisher, PublisherSettings, Sink
from dsql_outbox.publisher.leases import table as lease_table
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.writer import Writer


@pytest.fixture
def sql(outbox_url: str) -> Iterator[psycopg.Connection]:
    """A connection beside the library's."""
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def database_proxy(outbox_url: str) -> Iterator[PostgresProxy]:
    """A proxy in front of the tables of `database`."""
    with PostgresProxy(outbox_url) as proxy:
        yield proxy


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """A writer on the test's database."""
    with Writer(database) as writer:
        yield writer


def event(subject: str, n: int = 0) -> Event:
    """An event about one car."""
    return Event.new("CarCreated", [Entity("Car", subject, {"n": n})])


def count(sql: psycopg.Connection, table: str) -> int:
    """How many rows a table of ours has."""
    return len(sql.execute(f"SELECT FROM outbox.{table}").fetchall())  # type: ignore[arg-type]


@asynccontextmanager
async def running(*publishers: Publisher) -> AsyncGenerator[None]:
    """Let publishers run, and stop them in the end."""
    async with anyio.create_task_group() as group:
        for publisher in publishers:
            group.start_soon(publisher.run)
        yield
        for publisher in publishers:
            publisher.stop()


async def only_model(database: Database, name: str = "model") -> None:
    """Make a read model the only target. On DSQL nobody else writes, so nothing is waited for."""
    with patch.object(operator_targets, "LONGEST_TRANSACTION", 0.0):
        async with Targets(database) as targets:
            await targets.add(name, kind="model")
            await targets.drop("default")


async def relayed(database: Database, sink: Sink, **settings: Any) -> Relayed:
    """What a publisher of its own relays, until nothing more can be sent now."""
    publisher = Publisher(database, sink, TunedSettings(**settings))
    return await publisher.run(until_empty=True, max_wait=0)


async def until(state: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a state that is another's, as the database's or a publisher's."""
    with anyio.fail_after(seconds):
        while not state():  # noqa: ASYNC110 - nobody tells of it
            await anyio.sleep(0.005)


def quick_settings(**others: object) -> TunedSettings:
    """Settings of a publisher that sleeps for a short time only."""
    return TunedSettings(**({"idle_max": 0.05} | others))  # type: ignore[arg-type]


def in_order(messages: Sequence[Message]) -> bool:
    """Whether each subject's messages came without a gap."""
    last: Counter[str] = Counter()
    for message in messages:
        version = int(message.headers["sequence"])
        if version != last[message.key] + 1:
            return False
        last[message.key] = version
    return True


@pytest.fixture(autouse=True)
def patient_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statements of short leases have as long as those of usual ones.

    A lease of a second gives them 0.3 s, and a busy machine may stand still for longer. A
    publisher whose first beat is not answered in time ends.
    """

    def patient(*args: Any, timeout: float, **options: Any) -> LastingConnection:
        return LastingConnection(*args, timeout=max(timeout, PublisherSettings().renew), **options)

    monkeypatch.setattr(lease_table, "LastingConnection", patient)


@pytest.fixture
def shards() -> int:
    """How many shards the tables have."""
    return 4


@pytest.fixture
def database(outbox_url: str) -> Database:
    """A new database with outbox tables."""
    return Database(outbox_url)
