"""Connections to a real PostgreSQL: deadlines, cancellation, isolation, the pool."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, get_args

import anyio
import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.address import Isolation
from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.dsql_address import DsqlAddress

pytestmark = pytest.mark.anyio

QUICKLY = 2.0  # seconds; psycopg's own way of cancelling takes 5 and more on a dead link
SLEEP = "SELECT pg_sleep(30)"

SyncWork = Callable[[Connection], object]


@contextmanager
def quickly() -> Iterator[None]:
    start = monotonic()
    yield
    assert monotonic() - start < QUICKLY


def execute(connection: Connection) -> None:
    connection.execute(SLEEP)


def in_transaction(connection: Connection) -> None:
    with connection.transaction():
        connection.execute(SLEEP)


def in_pipeline(connection: Connection) -> None:
    with connection.pipeline():
        connection.execute("BEGIN")
        connection.execute(SLEEP)
        connection.execute("COMMIT")


@pytest.mark.parametrize("work", [execute, in_transaction, in_pipeline])
def test_a_statement_ends_at_the_deadline(
    database_url: str, work: SyncWork, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Database(database_url).connect()
    connection.deadline = monotonic() + 0.2
    with quickly(), pytest.raises(psycopg.OperationalError, match="before the deadline"):
        work(connection)
    assert connection.closed
    assert not caplog.records  # psycopg warns of each rollback that it could not do


async def execute_async(connection: AsyncConnection) -> None:
    await connection.execute(SLEEP)


async def in_transaction_async(connection: AsyncConnection) -> None:
    async with connection.transaction():
        await connection.execute(SLEEP)


async def in_pipeline_async(connection: AsyncConnection) -> None:
    async with connection.pipeline():
        await connection.execute("BEGIN")
        await connection.execute(SLEEP)
        await connection.execute("COMMIT")


ASYNC_WORK = pytest.mark.parametrize(
    "work", [execute_async, in_transaction_async, in_pipeline_async]
)


@ASYNC_WORK
async def test_a_statement_of_a_task_ends_at_the_deadline(
    database_url: str, work: Callable[[AsyncConnection], Any], caplog: pytest.LogCaptureFixture
) -> None:
    connection = await Database(database_url).connect_async()
    connection.deadline = monotonic() + 0.2
    with quickly(), pytest.raises(psycopg.OperationalError, match="before the deadline"):
        await work(connection)
    assert connection.closed
    assert not caplog.records


@ASYNC_WORK
async def test_a_cancelled_task_ends_at_once_and_asks_the_server_for_nothing(
    database_url: str, work: Callable[[AsyncConnection], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[object]()
    monkeypatch.setattr(AsyncConnection, "cancel_safe", asked.append)
    monkeypatch.setattr(AsyncConnection, "_try_cancel", asked.append)
    database = Database(database_url)
    connection = await database.connect_async()
    task = asyncio.create_task(work(connection))
    await until_sleeping(database)
    with quickly():
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert connection.closed
    assert not asked


async def until_sleeping(database: Database) -> None:
    """Wait until the server runs the statement."""
    found = """SELECT count(*) FROM pg_stat_activity
      WHERE datname = current_database() AND state = 'active' AND query = %s"""
    async with await database.connect_async() as watcher:
        with anyio.fail_after(60):
            while await one(watcher, found, SLEEP) == 0:  # noqa: ASYNC110 - the server's state
                await anyio.sleep(0.01)


async def one(connection: AsyncConnection, query: Any, *parameters: object) -> Any:
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None
    return row[0]


def test_a_deadline_that_is_kept_changes_nothing(database_url: str) -> None:
    with Database(database_url).connect() as connection:
        connection.deadline = monotonic() + 60
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        assert not connection.closed


@pytest.mark.postgres_only("ministack tells no process id of the server")
def test_a_lost_connection_before_the_deadline_stays_what_it_is(database_url: str) -> None:
    database = Database(database_url)
    with database.connect() as connection, database.connect() as killer:
        connection.deadline = monotonic() + 60
        killer.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute(SLEEP)


def test_a_deadline_in_the_past_ends_the_first_statement(database_url: str) -> None:
    connection = Database(database_url).connect()
    connection.deadline = monotonic() - 1
    with quickly(), pytest.raises(psycopg.OperationalError, match="before the deadline"):
        connection.execute(SLEEP)


@pytest.mark.postgres_only("DSQL has one isolation level")
@pytest.mark.parametrize("level", get_args(Isolation))
async def test_the_isolation_is_that_of_every_connection(
    database_url: str, level: Isolation
) -> None:
    database = Database(f"{database_url}?options=-c%20work_mem%3D8MB", isolation=level)
    with database.connect() as connection:
        assert connection.autocommit
        assert connection.execute("SHOW transaction_isolation").fetchone() == (level,)
        assert connection.execute("SHOW work_mem").fetchone() == ("8MB",)
        with connection.transaction():
            assert connection.execute("SHOW transaction_isolation").fetchone() == (level,)
    async with await database.connect_async() as other:
        assert await one(other, "SHOW transaction_isolation") == level


@pytest.mark.postgres_only("ministack tells no process id of the server")
def test_nothing_is_sent_on_connect(database_url: str) -> None:
    """DSQL refuses much of what clients like to set."""
    database = Database(database_url)
    last = "SELECT query FROM pg_stat_activity WHERE pid = %s"
    with database.connect() as connection, database.connect() as watcher:
        assert watcher.execute(last, [connection.info.backend_pid]).fetchone() == ("",)


async def test_connections_retire_within_55_minutes_and_not_all_at_once(database_url: str) -> None:
    database = Database(database_url)
    ages = list[float]()
    for _ in range(10):
        before = monotonic()
        with database.connect() as connection:
            ages.append(connection.retires_at - before)
        async with await database.connect_async() as other:
            ages.append(other.retires_at - before)
    assert all(52 * 60 < age < 55 * 60 + 5 for age in ages)
    assert max(ages) - min(ages) > 10


def test_what_a_dsql_address_gives_opens_a_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFAKEFAKEFAKEFAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
    url = "dsql://postgres@abc.dsql.eu-central-1.on.aws/postgres"
    here = psycopg.conninfo.conninfo_to_dict(database_url)
    found: dict[str, Any] = DsqlAddress(url).parameters("writer") | {
        "hostaddr": here["host"],
        "port": here["port"],
        "password": here.get("password", "none"),  # only the embedded server asks for one
        # The embedded server knows no TLS.
        "sslmode": "disable",
        "sslrootcert": "",
        "sslnegotiation": "postgres",
    }
    with Connection.connect(**found, autocommit=True) as connection:
        row = connection.execute(
            "SELECT current_user, current_database(), current_setting('application_name')"
        ).fetchone()
    assert row is not None
    assert row[:2] == ("postgres", "postgres")
    assert row[2].startswith("dsql-outbox writer:aurora-dsql-python-psycopg/")


def test_an_error_is_told_before_whoever_runs_the_statement_meets_it(database_url: str) -> None:
    told: list[tuple[psycopg.Error, int]] = []
    with Database(database_url).connect() as connection:
        connection.on_error = lambda error, before: told.append((error, before))
        with pytest.raises(psycopg.errors.DivisionByZero) as raised:
            connection.execute("SELECT 1 / 0")
        assert told == [(raised.value, TransactionStatus.IDLE)]
        connection.deadline = monotonic() + 0.1
        with pytest.raises(psycopg.OperationalError, match="before the deadline") as late:
            connection.execute(SLEEP)
    assert told[1:] == [(late.value, TransactionStatus.IDLE)]
    assert isinstance(late.value.__cause__, psycopg.OperationalError)


async def test_an_error_is_told_before_the_task_that_runs_the_statement_meets_it(
    database_url: str,
) -> None:
    told: list[tuple[psycopg.Error, int]] = []
    async with await Database(database_url).connect_async() as connection:
        connection.on_error = lambda error, before: told.append((error, before))
        with pytest.raises(psycopg.errors.DivisionByZero) as raised:
            await connection.execute("SELECT 1 / 0")
    assert told == [(raised.value, TransactionStatus.IDLE)]


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Two addresses of somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        yield f"postgresql://127.0.0.1:{port},127.0.0.1:{port}/postgres"


def test_connecting_ends_when_its_time_is_over(silent_url: str) -> None:
    """libpq gives each address 2 s at the least."""
    began = monotonic()
    with pytest.raises(psycopg.OperationalError, match="before the timeout"):
        Database(silent_url).connect(timeout=0.3)
    assert 0.3 <= monotonic() - began < 1.9


async def test_a_task_that_connects_ends_when_its_time_is_over(silent_url: str) -> None:
    began = monotonic()
    with pytest.raises(psycopg.OperationalError, match="before the timeout"):
        await Database(silent_url).connect_async(timeout=0.3)
    assert 0.3 <= monotonic() - began < 1.9


def test_a_time_to_connect_is_of_its_own_connection_only(database_url: str) -> None:
    with Database(database_url).connect(timeout=1.0) as connection:
        connection.execute("SELECT pg_sleep(1.1)")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_that_is_not_made_in_time_is_closed(database_url: str) -> None:
    with PostgresProxy(database_url) as proxy, proxy.swallow_server():
        with pytest.raises(psycopg.OperationalError, match="before the timeout"):
            Database(proxy.url).connect(timeout=0.2)
        proxy.wait_until_closed(1)


async def test_a_connection_that_a_task_does_not_make_in_time_is_closed(database_url: str) -> None:
    with PostgresProxy(database_url) as proxy, proxy.swallow_server():
        with pytest.raises(psycopg.OperationalError, match="before the timeout"):
            await Database(proxy.url).connect_async(timeout=0.2)
        proxy.wait_until_closed(1)


async def test_a_connection_that_a_cancelled_task_was_making_is_closed(database_url: str) -> None:
    with PostgresProxy(database_url) as proxy, proxy.swallow_server():
        with anyio.move_on_after(0.2):
            await Database(proxy.url).connect_async()
        proxy.wait_until_closed(1)
