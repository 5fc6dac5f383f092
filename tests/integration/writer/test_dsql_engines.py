"""Events in sessions of the engines that Aurora DSQL takes: those of AWS's dialect, and others.

Without the stand-in for DSQL they run on PostgreSQL.
"""

from typing import Any, Final

import asyncpg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, text
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, NotSupportedError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import CreateTable
from tests.support.driver_sessions import engine_url, without_options
from tests.support.dsql.server import ON_DSQL
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import transact
from dsql_outbox.outbox import Database, Receipt, TransactionMisused, is_retryable
from dsql_outbox.writer import AsyncWriter, Writer

__all__ = ["own"]

ROW: Final = text("INSERT INTO own VALUES (1)")
NO_HSTORE: Final = {"use_native_hstore": False}

SYNC: Final[dict[str, dict[str, Any]]] = {
    "auroradsql+psycopg": {},
    "auroradsql+psycopg2": {},
    "postgresql+psycopg": NO_HSTORE,
    "postgresql+psycopg2": {},
}
"""Each engine, and the options that it needs on DSQL."""

ASYNC: Final[dict[str, dict[str, Any]]] = {
    "auroradsql+psycopg": NO_HSTORE,
    "postgresql+psycopg": NO_HSTORE,
    "postgresql+asyncpg": {},
}

on_dsql_only = pytest.mark.skipif(not ON_DSQL, reason="PostgreSQL refuses nothing here")


def arguments(scheme: str, url: str) -> dict[str, Any]:
    """The URL of an engine, and its options: the stand-in governs sessions of this name."""
    name = {"application_name": "dsql-outbox"}
    of_asyncpg = {"server_settings": name, "ssl": False}
    return {
        "url": engine_url(url, "driver").replace("postgresql+driver", scheme),
        "connect_args": of_asyncpg if scheme.endswith("asyncpg") else name,
    }


@pytest.mark.parametrize("scheme", SYNC)
def test_an_event_joins_the_session_of_an_engine(own: Tables, url: str, scheme: str) -> None:
    engine = create_engine(**arguments(scheme, url), **SYNC[scheme])
    event, undone = workload_s.car_created(), workload_s.car_created("CAR-2")
    with Writer(Database(url), formed(QUICK)) as writer, Session(engine) as session:
        session.execute(ROW)
        writer.append_to(session, event)
        session.commit()
        session.execute(ROW)
        writer.append_to(session, undone)
        session.rollback()
    engine.dispose()
    assert (own_rows(own), ids(own)) == (1, {event.id})


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ASYNC)
async def test_an_event_joins_the_session_of_an_async_engine(
    own: Tables, url: str, scheme: str
) -> None:
    engine = create_async_engine(**arguments(scheme, url), **ASYNC[scheme])
    event, undone = workload_s.car_created(), workload_s.car_created("CAR-2")
    async with AsyncWriter(Database(url), formed(QUICK)) as writer, AsyncSession(engine) as session:
        await session.execute(ROW)
        await writer.append_to(session, event)
        await session.commit()
        await session.execute(ROW)
        await writer.append_to(session, undone)
        await session.rollback()
    await engine.dispose()
    assert (own_rows(own), ids(own)) == (1, {event.id})


@on_dsql_only
@pytest.mark.parametrize("scheme", SYNC)
def test_a_conflict_at_the_commit_is_retryable(own: Tables, url: str, scheme: str) -> None:
    engine = create_engine(**arguments(scheme, url), **SYNC[scheme])
    event, rival = workload_s.car_created(), workload_s.car_created()
    with Writer(Database(url), formed(QUICK)) as writer:
        with Session(engine) as session:
            session.execute(ROW)
            writer.append_to(session, event)
            writer.write(rival)
            with pytest.raises(DBAPIError) as raised:
                session.commit()
        assert is_retryable(raised.value)
        with Session(engine) as session:
            session.execute(ROW)
            writer.append_to(session, event)
            session.commit()
    engine.dispose()
    assert (own_rows(own), ids(own)) == (1, {event.id, rival.id})


@on_dsql_only
@pytest.mark.anyio
async def test_a_conflict_at_the_commit_is_retryable_on_asyncpg(own: Tables, url: str) -> None:
    engine = create_async_engine(**arguments("postgresql+asyncpg", url))
    event, rival = workload_s.car_created(), workload_s.car_created()
    async with AsyncWriter(Database(url), formed(QUICK)) as writer:
        async with AsyncSession(engine) as session:
            await writer.append_to(session, event)
            await writer.write(rival)
            with pytest.raises(DBAPIError) as raised:
                await session.commit()
        assert is_retryable(raised.value)
    await engine.dispose()
    assert ids(own) == {rival.id}


@on_dsql_only
def test_the_question_about_hstore_needs_a_savepoint_that_dsql_refuses(url: str) -> None:
    engine = create_engine(**arguments("postgresql+psycopg", url))
    with Session(engine) as session, pytest.raises(NotSupportedError, match="SAVEPOINT"):
        session.execute(text("SELECT 1"))
    engine.dispose()


def test_aws_has_no_dialect_for_asyncpg(url: str) -> None:
    with pytest.raises(NoSuchModuleError, match=r"auroradsql\.asyncpg"):
        create_async_engine(**arguments("auroradsql+asyncpg", url))


async def keep(_connection: Any) -> None:
    """Leave the session of a connection as it is."""


@pytest.mark.anyio
@pytest.mark.parametrize("reset", [keep, pytest.param(None, marks=on_dsql_only)])
async def test_the_pool_of_asyncpg_needs_a_reset_that_dsql_takes(
    own: Tables, url: str, reset: Any
) -> None:
    options = arguments("asyncpg", url)["connect_args"]
    made = asyncpg.create_pool(without_options(url), min_size=1, max_size=1, reset=reset, **options)
    event = workload_s.car_created()
    async with made as pool, AsyncWriter(Database(url), formed(QUICK)) as writer:
        connection = await pool.acquire()
        async with connection.transaction():
            await connection.execute(ROW.text)
            await writer.append_to(connection, event)
        if reset is None:
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="pg_advisory_unlock_all"):
                await pool.release(connection)
        else:
            await pool.release(connection)
    assert (own_rows(own), ids(own)) == (1, {event.id})


@pytest.mark.parametrize("scheme", SYNC)
def test_a_unit_of_work_runs_in_sessions_of_an_engine(own: Tables, url: str, scheme: str) -> None:
    engine = create_engine(**arguments(scheme, url), **SYNC[scheme])
    event, rival = workload_s.car_created(), workload_s.car_created()
    with Writer(Database(url), formed(QUICK)) as writer:
        runs: list[Session] = []

        def work(session: Session) -> Receipt:
            runs.append(session)
            session.execute(ROW)
            receipt = writer.append_to(session, event)
            if ON_DSQL and len(runs) == 1:
                rivals.write(rival)
            return receipt

        with Writer(Database(url), formed(QUICK)) as rivals:
            receipt = transact(writer, sessionmaker(engine), work)
    engine.dispose()
    assert own_rows(own) == 1
    assert ids(own) == ({event.id, rival.id} if ON_DSQL else {event.id})
    assert (len(runs), receipt.conflicts) == ((2, 1) if ON_DSQL else (1, 0))


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ASYNC)
async def test_a_unit_of_work_runs_in_sessions_of_an_async_engine(
    own: Tables, url: str, scheme: str
) -> None:
    engine = create_async_engine(**arguments(scheme, url), **ASYNC[scheme])
    event = workload_s.car_created()
    async with AsyncWriter(Database(url), formed(QUICK)) as writer:

        async def work(session: AsyncSession) -> None:
            await session.execute(ROW)
            await writer.append_to(session, event)

        await transact(writer, async_sessionmaker(engine), work)
    await engine.dispose()
    assert (own_rows(own), ids(own)) == (1, {event.id})


@pytest.mark.parametrize("scheme", ["auroradsql+psycopg", "auroradsql+psycopg2"])
def test_ddl_of_awss_dialect_ends_a_unit_of_work(own: Tables, url: str, scheme: str) -> None:
    """The dialect commits after it."""
    engine = create_engine(**arguments(scheme, url), **SYNC[scheme])
    table = Table("made", MetaData(), Column("n", Integer, primary_key=True, autoincrement=False))
    with Writer(Database(url), formed(QUICK)) as writer:

        def work(session: Session) -> None:
            session.execute(CreateTable(table))
            writer.append_to(session, workload_s.car_created())

        with pytest.raises(TransactionMisused):
            transact(writer, sessionmaker(engine), work)
    engine.dispose()
    assert (own_rows(own), ids(own)) == (0, set())
