"""Errors of `append_to` that the caller swallows: no row is committed without its event."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import psycopg
import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only
from tests.support.driver_sessions import engine_url, without_options
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.django_connections import django_connection
from tests.support.writer.session_transacts import Own
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    StaleVersion,
    TransactionMisused,
    WriterClosed,
)
from dsql_outbox.writer import AsyncWriter, Writer, async_writer, transact

__all__ = ["django_connection", "own"]

STORED = UUID("5f0c6a1e-6c3e-4a0a-9f43-2d8c1a5b7e90")
ROW = b"INSERT INTO own VALUES (1)"

ERRORS: dict[str, tuple[type[Exception], Any, dict[str, Any]]] = {
    "not valid": (InvalidEvent, b"{}", {}),
    "wrong argument": (ValueError, workload_s.car_created(), {"expected_version": -1}),
    "stale": (StaleVersion, workload_s.car_created(), {"expected_version": 7}),
    "stored before": (DuplicateEvent, workload_s.car_created(id=STORED), {}),
    "out of reach": (psycopg.OperationalError, workload_s.car_created(), {}),
    "closed": (WriterClosed, workload_s.car_created(), {}),
}


@pytest.fixture
def _stored(url: str) -> None:
    with Writer(Database(url), formed(QUICK)) as writer:
        writer.write(workload_s.car_created(id=STORED))


def database_for(name: str, url: str) -> Database:
    return Database("host=/nonexistent" if name == "out of reach" else url)


@contextmanager
def failing(name: str, url: str) -> Generator[Callable[[Any], None]]:
    """Yield an `append_to` whose error the caller swallows."""
    error, event, options = ERRORS[name]
    with Writer(database_for(name, url), formed(QUICK)) as writer:
        if name == "closed":
            writer.close()

        def append_to(given: Any) -> None:
            with pytest.raises(error):
                writer.append_to(given, event, **options)

        yield append_to


@pytest.mark.anyio
@pytest.mark.client
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_after_an_error_of_the_session_itself_its_rows_cannot_be_committed(
    own: Tables, url: str, kind: str
) -> None:
    """A session with an engine for its rows alone has no connection for the event."""
    create: Any = create_async_engine if kind == "async" else create_engine
    engine = create(engine_url(url, "psycopg"), poolclass=NullPool)
    session = Session(binds={Own: getattr(engine, "sync_engine", engine)})

    def work(append_to: Callable[[], Any]) -> None:
        session.add(Own(n=1))
        session.flush()
        with pytest.raises(UnboundExecutionError):
            append_to()
        session.commit()

    if kind == "sync":
        with Writer(Database(url), formed(QUICK)) as writer:
            work(lambda: writer.append_to(session, workload_s.car_created()))
    else:
        async with AsyncWriter(Database(url), formed(QUICK)) as async_writer:
            given = AsyncSession(engine)
            given.sync_session = session
            await given.run_sync(
                lambda _: work(
                    lambda: await_only(async_writer.append_to(given, workload_s.car_created()))
                )
            )
            await given.close()
    session.close()
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.client
@pytest.mark.usefixtures("_stored")
def test_after_an_error_djangos_block_is_rolled_back_without_its_hooks(
    own: Tables, url: str, django_connection: Any
) -> None:
    mails: list[str] = []
    for name in ERRORS:
        with failing(name, url) as append_to, transaction.atomic():
            transaction.on_commit(lambda name=name: mails.append(name))
            with django_connection.cursor() as cursor:
                cursor.execute(ROW)
                append_to(django_connection)
                with pytest.raises(TransactionManagementError):
                    cursor.execute(ROW)
        assert (own_rows(own), ids(own), mails) == (0, {STORED}, []), name


@pytest.mark.client
def test_after_an_error_nothing_of_a_pipeline_can_be_committed(own: Tables, url: str) -> None:
    with psycopg.connect(url) as mine:
        with suppress(psycopg.Error), mine.pipeline(), failing("not valid", url) as append_to:
            mine.execute(ROW)
            append_to(mine)
            mine.execute(ROW)
        mine.commit()
    assert own_rows(own) == 0


BAD: dict[str, tuple[type[Exception], Any, dict[str, Any]]] = {
    "not valid": ERRORS["not valid"],
    "wrong type": (TypeError, 7, {}),
    "too large": (EventTooLarge, workload_s.many_entities("n" * 20_000, 1_000), {}),
    "wrong argument": ERRORS["wrong argument"],
    "stale": ERRORS["stale"],
    "stored before": ERRORS["stored before"],
}


@pytest.mark.client
@pytest.mark.usefixtures("_stored")
@pytest.mark.parametrize("way", ["append", "append_to", "pool"])
def test_an_error_that_the_function_of_transact_swallows_ends_the_call(
    own: Tables, url: str, way: str
) -> None:
    """The verb is one, and so is its rule, wherever the connection is from."""
    with (
        Writer(Database(url), formed(QUICK)) as writer,
        ConnectionPool(url, min_size=1, max_size=1) as pool,
    ):
        for name, (error, event, options) in BAD.items():

            def function(given: Any, event: Any = event, options: Any = options) -> None:
                connection = given if way == "pool" else given.connection
                connection.execute(ROW)
                with suppress(Exception):
                    if way == "append":
                        given.append(event, **options)
                    else:
                        writer.append_to(connection, event, **options)

            run = partial(transact, writer, pool) if way == "pool" else writer.transact
            with pytest.raises(error):
                run(function)
            assert (own_rows(own), ids(own)) == (0, {STORED}), name


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncGenerator[tuple[Any, Any, Any]]:
    """A session for tasks, and how it executes a statement and commits."""
    driver, _, is_session = kind.partition(" ")
    if is_session:
        engine = create_async_engine(engine_url(url, driver), poolclass=NullPool)
        session = AsyncSession(engine)
        yield session, lambda sql: session.execute(text(sql)), session.commit
        with suppress(Exception):
            await session.close()
    elif driver == "psycopg":
        connection = await psycopg.AsyncConnection.connect(url)
        yield connection, lambda sql: connection.execute(sql.encode()), connection.commit
        await connection.close()
    else:
        other: Any = await asyncpg.connect(without_options(url))
        transaction = other.transaction()
        await transaction.start()
        yield other, other.execute, transaction.commit
        other.terminate()


@pytest.mark.anyio
@pytest.mark.client
@pytest.mark.postgres_only("a statement waits for a lock")
@pytest.mark.parametrize("end", ["limit", "cancelled"])
@pytest.mark.parametrize(
    "kind", ["psycopg", "asyncpg", "psycopg AsyncSession", "asyncpg AsyncSession"]
)
async def test_without_an_answer_to_the_failing_statement_the_connection_is_ended(
    own: Tables, url: str, monkeypatch: pytest.MonkeyPatch, kind: str, end: str
) -> None:
    """Another task has the connection until the limit, or the task is cancelled once more."""
    monkeypatch.setattr(async_writer, "FAIL_SECONDS", 0.2 if end == "limit" else 60)
    own.execute("SELECT pg_advisory_lock(7)")

    def is_waiting() -> bool:
        sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(own.execute(sql))

    async with (
        AsyncWriter(Database(url), formed(QUICK)) as writer,
        opened(kind, url) as (session, execute, commit),
    ):
        await execute(ROW.decode())
        other = asyncio.ensure_future(execute("SELECT pg_advisory_lock(7)"))
        await asyncio.to_thread(wait_until, is_waiting)
        appending = asyncio.create_task(writer.append_to(session, b"{}"))
        if end == "cancelled":
            for _ in range(100):  # its error comes before anything is sent
                await asyncio.sleep(0)
            appending.cancel()
        with pytest.raises((InvalidEvent, asyncio.CancelledError)):
            await appending
        own.execute("SELECT pg_advisory_unlock(7)")
        with suppress(Exception):
            await other
        with pytest.raises(Exception, match=r"."):
            await commit()
    assert own_rows(own) == 0


@pytest.mark.anyio
@pytest.mark.client
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_session_that_gets_its_connection_later_cannot_commit_either(
    own: Tables, url: str, kind: str
) -> None:
    """Its pool had lent all connections when the event was to be stored."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    if kind == "sync":
        engine = create_engine(engine_url(url, "psycopg"), **options)
        with Writer(Database(url), formed(QUICK)) as writer, Session(engine) as session:
            with engine.connect(), pytest.raises(PoolTimeout):
                writer.append_to(session, workload_s.car_created())
            with suppress(TransactionMisused):
                session.execute(text(ROW.decode()))
            session.commit()
            session.rollback()
            session.execute(text(ROW.decode()))  # in another transaction
            session.rollback()
        engine.dispose()
    else:
        engine_of_tasks = create_async_engine(engine_url(url, "asyncpg"), **options)
        async with (
            AsyncWriter(Database(url), formed(QUICK)) as async_writer,
            AsyncSession(engine_of_tasks) as async_session,
        ):
            async with engine_of_tasks.connect():
                with pytest.raises(PoolTimeout):
                    await async_writer.append_to(async_session, workload_s.car_created())
            with suppress(TransactionMisused):
                await async_session.execute(text(ROW.decode()))
            await async_session.commit()
        await engine_of_tasks.dispose()
    assert (own_rows(own), ids(own)) == (0, set())
