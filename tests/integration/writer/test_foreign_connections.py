"""Events in transactions of SQLAlchemy and Django, as their pages show it."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.db.transaction import TransactionManagementError
from sqlalchemy import Engine, create_engine, insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only, greenlet_spawn
from tests.support.driver_sessions import engine_url
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.django_connections import django_connection
from tests.support.writer.session_transacts import Own
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.outbox import Database, TransactionMisused
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = pytest.mark.client

__all__ = ["django_connection", "own"]

INSERT = "INSERT INTO own VALUES (1)"


@pytest.fixture
def writer(url: str) -> Iterator[Writer]:
    """A writer."""
    with Writer(Database(url), formed(QUICK)) as writer:
        yield writer


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine at the isolation level of Aurora DSQL."""
    engine = create_engine(engine_url(url, "psycopg"), isolation_level="REPEATABLE READ")
    yield engine
    engine.dispose()


def test_a_session_of_another_driver_is_refused(own: Tables, writer: Writer) -> None:
    engine = create_engine("sqlite://")
    for given in (Session(engine), engine.connect()):
        with given, pytest.raises(TypeError, match=r'create_engine\("postgresql\+psycopg://'):
            writer.append_to(given, workload_s.car_created())
    engine.dispose()
    assert ids(own) == set()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "given",
    [
        Session(),
        AsyncSession(),
        create_async_engine("postgresql+psycopg://").connect(),
        create_engine("sqlite://"),
        Session,
    ],
    ids=lambda given: type(given).__name__,
)
async def test_a_session_of_the_other_kind_and_a_class_are_refused(url: str, given: Any) -> None:
    if not isinstance(given, Session):
        with Writer(Database(url)) as writer, pytest.raises(TypeError, match="a Session or Conn"):
            writer.append_to(given, workload_s.car_created())
    if not isinstance(given, (AsyncSession, AsyncConnection)):
        async with AsyncWriter(Database(url)) as async_writer:
            with pytest.raises(TypeError, match="or an AsyncSession or AsyncConnection of SQLAlc"):
                await async_writer.append_to(given, workload_s.car_created())


def test_djangos_block_that_will_be_rolled_back_is_refused(
    own: Tables, writer: Writer, django_connection: Any
) -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError):
            writer.append_to(django_connection, workload_s.car_created())
    assert ids(own) == set()


class Choosing(Session):
    """A session that sends each write of the ORM to another engine."""

    elsewhere: Any = None

    def get_bind(self, mapper: Any = None, **options: Any) -> Any:
        return super().get_bind(**options) if mapper is None else self.elsewhere


def write_row(session: Session, write: str, other: Any) -> None:
    if write == "argument":
        session.execute(insert(Own).values(n=1), bind_arguments={"bind": other})
    else:
        session.add(Own(n=1))


def commit_all_the_same(session: Session) -> None:
    session.expunge_all()
    with pytest.raises(SQLAlchemyError):
        session.execute(insert(Own).values(n=2))
    with suppress(SQLAlchemyError):
        session.commit()


WRITES = ["get_bind", "binds", "argument", "no second connection"]


@pytest.mark.anyio
@pytest.mark.pairs
@pytest.mark.parametrize("swallows", [True, False])
@pytest.mark.parametrize("order", ["before", "after", "flushed at the commit"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", ["sync", "scoped", "async"])
async def test_an_event_is_refused_if_the_session_writes_on_another_connection(
    own: Tables, url: str, kind: str, write: str, order: str, *, swallows: bool
) -> None:
    """Two connections commit one after the other: the first stays if the second fails.

    If the caller swallows the refusal, neither transaction can be committed.
    """
    is_async = kind == "async"
    create: Any = create_async_engine if is_async else create_engine
    engines = [create(engine_url(url, "psycopg"), poolclass=NullPool) for _ in range(2)]
    main, other = (getattr(engine, "sync_engine", engine) for engine in engines)
    Choosing.elsewhere = other
    options: Any = {"binds": {Own: other}} if write == "binds" else {}
    session = (Choosing if write == "get_bind" else Session)(main, **options)
    factory: Any = lambda: session  # noqa: E731
    sessions: Any = scoped_session(factory)
    event = workload_s.car_created()

    def work(append: Any) -> None:
        if order == "before":
            write_row(session, write, other)
            session.flush()
        try:
            append(event)
            if order != "before":
                write_row(session, write, other)
            if order == "after":
                session.flush()
            session.commit()
        except TransactionMisused:
            if swallows:
                commit_all_the_same(session)
            raise

    async def run() -> None:
        if not is_async:
            with Writer(Database(url), formed(QUICK)) as writer:
                given = sessions if kind == "scoped" else session
                work(partial(writer.append_to, given))
            return
        async with AsyncWriter(Database(url), formed(QUICK)) as writer:
            given = AsyncSession(engines[0])
            given.sync_session = session

            def append(event: Any) -> None:
                await_only(writer.append_to(given, event))

            await given.run_sync(lambda _: work(append))

    refused = write != "no second connection"
    expected: Any = pytest.raises(TransactionMisused, match="another connection")
    try:
        with expected if refused else nullcontext():
            await run()
    finally:
        (await greenlet_spawn(session.close)) if is_async else session.close()
    assert (own_rows(own), ids(own)) == ((0, set()) if refused else (1, {event.id}))
