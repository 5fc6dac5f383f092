"""A writer rings the doorbell of the publishers after each commit, and nothing waits for that."""

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest
from django.db import transaction as django_transaction
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from tests.support.database_roles import as_role
from tests.support.driver_sessions import engine_url
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.django_connections import django_connection
from tests.support.writer.written_events import event

from dsql_outbox import transact
from dsql_outbox.outbox import Database, SettingsError
from dsql_outbox.schema.roles import Roles
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings
from dsql_outbox.writer.doorbell import JOINED

__all__ = ["django_connection"]

pytestmark = pytest.mark.postgres_only("DSQL has no NOTIFY")

RINGS = WriterSettings(doorbell=True)
RING = "pg_notify"


@pytest.fixture
def heard(url: str) -> Iterator[Callable[[], int]]:
    """How many rings a listener has heard so far."""
    rings: list[str] = []
    with psycopg.connect(url, autocommit=True) as listener:
        listener.add_notify_handler(lambda notify: rings.append(notify.payload))
        listener.execute("LISTEN dsql_outbox")

        def count() -> int:
            listener.execute("SELECT 1")
            return len(rings)

        yield count


def rings_of(proxy: PostgresProxy) -> int:
    return sum(RING in text for text in proxy.statements)


def is_one_more(heard: Callable[[], int], work: Callable[[], object]) -> bool:
    """Whether some work makes a ring arrive."""
    before = heard()
    work()
    wait_until(lambda: heard() > before, 10)
    return True


def append(given: Any, writer: Writer) -> None:
    writer.append_to(given, event())


def test_every_way_to_commit_rings(
    url: str, heard: Callable[[], int], django_connection: Any
) -> None:
    engine = create_engine(engine_url(url, "psycopg"))
    with Writer(Database(url), RINGS) as writer, Session(engine) as session:

        def in_function(given: Session) -> None:
            append(given, writer)

        def in_session() -> None:
            append(session, writer)
            with session.begin_nested():
                append(session, writer)
            session.commit()

        def in_django() -> None:
            with django_transaction.atomic():
                append(django_connection, writer)

        def by_hand() -> None:
            with psycopg.connect(url) as connection:
                append(connection, writer)
            writer.ring()

        assert is_one_more(heard, lambda: writer.write(event()))
        assert is_one_more(heard, lambda: writer.write_many([event(), event()]))
        assert is_one_more(heard, lambda: writer.transact(lambda t: t.append(event())))
        assert is_one_more(heard, lambda: transact(writer, sessionmaker(engine), in_function))
        assert is_one_more(heard, in_session)
        assert is_one_more(heard, in_django)
        assert is_one_more(heard, by_hand)
    engine.dispose()


async def every_way(url: str, heard: Callable[[], int]) -> None:
    engine = create_async_engine(engine_url(url, "asyncpg"))
    grouped = AsyncWriter(Database(url), WriterSettings(doorbell=True, coalesce=2))
    async with AsyncWriter(Database(url), RINGS) as writer, grouped:

        async def in_run(run: Any) -> None:
            await run.append(event())

        async def in_session(session: AsyncSession) -> None:
            await writer.append_to(session, event())

        async def by_hand() -> None:
            async with AsyncSession(engine) as session:
                await in_session(session)
                await session.commit()

        for way in (
            lambda: writer.write(event()),
            lambda: writer.write_many([event()]),
            lambda: writer.transact(in_run),
            lambda: transact(writer, async_sessionmaker(engine), in_session),
            lambda: grouped.write(event()),
            by_hand,
        ):
            before = heard()
            await way()
            async with asyncio.timeout(10):
                while heard() == before:  # noqa: ASYNC110 - the state is the server's
                    await asyncio.sleep(0.005)
    await engine.dispose()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "no round outlives its writer"


def test_every_way_to_commit_in_a_task_rings(url: str, heard: Callable[[], int]) -> None:
    asyncio.run(every_way(url, heard))


def test_nothing_that_was_not_committed_rings(
    url: str, proxy: PostgresProxy, django_connection: Any
) -> None:
    engine = create_engine(engine_url(url, "psycopg"))
    with Writer(Database(proxy.url), RINGS) as writer:
        with Session(engine) as session:
            append(session, writer)
            session.rollback()
            session.commit()
        with django_transaction.atomic():
            append(django_connection, writer)
            django_transaction.set_rollback(True)
        with pytest.raises(ZeroDivisionError):
            writer.transact(lambda transaction: (transaction.append(event()), 1 / 0))
        with Writer(Database(proxy.url)) as silent:
            silent.write(event())
            silent.ring()
    engine.dispose()
    assert not rings_of(proxy), "a writer that ends sends what is due"


async def committed_in_a_task(url: str, writer_url: str) -> None:
    engine = create_async_engine(engine_url(url, "asyncpg"))
    async with AsyncWriter(Database(writer_url), RINGS) as writer, AsyncSession(engine) as session:
        await writer.append_to(session, event())
        await session.rollback()
    await engine.dispose()


def test_a_rollback_in_a_task_rings_for_nobody(url: str, proxy: PostgresProxy) -> None:
    asyncio.run(committed_in_a_task(url, proxy.url))
    assert not rings_of(proxy)


def test_a_burst_rings_at_once_and_then_every_ten_milliseconds(proxy: PostgresProxy) -> None:
    with Writer(Database(proxy.url), RINGS) as writer:
        writer.write(event())
        wait_until(lambda: rings_of(proxy) == 1)
        began = monotonic()

        def has_rung() -> bool:
            writer.ring()
            return monotonic() > began + 0.3

        wait_until(has_rung)
        took = monotonic() - began
    assert 1 < rings_of(proxy) <= took / JOINED + 3


async def written_together(url: str) -> float:
    settings = WriterSettings(doorbell=True, max_connections=4)
    async with AsyncWriter(Database(url), settings) as writer:
        began = monotonic()
        await asyncio.gather(*(writer.write(event()) for _ in range(1_000)))
        return monotonic() - began


def test_a_thousand_writes_at_once_ring_a_few_times(proxy: PostgresProxy) -> None:
    """All connections are busy to the end. Ten rings per second take their turn."""
    took = asyncio.run(written_together(proxy.url))
    wait_until(lambda: rings_of(proxy) > 0)
    assert rings_of(proxy) <= took / JOINED + 3


async def written_after_a_cancelled_ring(url: str) -> None:
    settings = WriterSettings(doorbell=True, max_connections=1)
    async with AsyncWriter(Database(url), settings) as writer:
        await writer.write(event())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await writer.write(event(), timeout=5)


def test_a_ring_that_is_cancelled_before_its_task_begins_keeps_no_connection(url: str) -> None:
    asyncio.run(written_after_a_cancelled_ring(url))


def test_a_transaction_that_writes_rings_only_after_its_commit(proxy: PostgresProxy) -> None:
    with Writer(Database(proxy.url), RINGS) as writer:
        writer.write(event())  # an idle connection, on which a ring could leave too early
        for _ in range(3):
            wait_until(lambda: rings_of(proxy) > 0)
            wait_until(lambda: not writer._doorbell._has_round)  # which would join the next ring
            proxy.reset_counts()
            writer.transact(lambda transaction: transaction.append(event()))
            wait_until(lambda: rings_of(proxy) > 0)
            sent = [text.strip() for text in proxy.statements]
            first = next(n for n, text in enumerate(sent) if RING in text)
            assert any(text.startswith("COMMIT") for text in sent[:first])
    assert not any("INSERT" in text for text in proxy.statements if RING in text)


def test_no_write_waits_for_a_ring_without_an_answer_and_none_fails(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.stall(None, matching=RING)
    began = monotonic()
    with Writer(Database(proxy.url), RINGS) as writer:
        for _ in range(10):
            writer.write(event(), timeout=30)
    assert monotonic() - began < 15
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_a_server_that_refuses_a_ring_is_asked_once(
    url: str, proxy: PostgresProxy, roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC")
    with Writer(Database(as_role(proxy.url, roles.writer)), RINGS) as writer:
        writer.write(event())
        wait_until(lambda: "cannot ring the doorbell" in caplog.text)
        for _ in range(5):
            assert writer.write(event()).status == "committed"
    assert rings_of(proxy) == 1
    assert caplog.text.count("cannot ring the doorbell") == 1
    assert "permission denied for function pg_notify" in caplog.text


@pytest.mark.parametrize("kind", [Writer, AsyncWriter])
def test_a_doorbell_on_aurora_dsql_is_refused_before_anything_is_sent(kind: Any) -> None:
    cluster = Database("dsql://app@abc.dsql.eu-west-1.on.aws/postgres")
    with pytest.raises(SettingsError, match=r"WriterSettings\.doorbell is not supported"):
        kind(cluster, RINGS)
