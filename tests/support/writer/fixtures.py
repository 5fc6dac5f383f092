"""Fixtures for tests of the writer; a conftest imports those that its folder needs."""

from collections.abc import Iterator
from functools import partial
from uuid import uuid4

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from dsql_outbox.outbox import DEFAULT_SCHEMA
from dsql_outbox.schema import ddl
from dsql_outbox.testing import EmbeddedPostgres, PostgresProxy

from .callers import Caller, Facts, OpenWriter, make_caller
from .checked_tables import Tables


@pytest.fixture(scope="session")
def shared_url(postgres: EmbeddedPostgres) -> str:
    """A database for all tests of the writer: making one takes longer than most tests."""
    return postgres.create_database(f"writer_{uuid4().hex}")


@pytest.fixture
def url(shared_url: str) -> str:
    """A database with new outbox tables, and nobody connected."""
    with Tables(shared_url) as tables:
        tables.hang_up_all()
        tables.execute("DROP SCHEMA IF EXISTS outbox CASCADE")
        tables.connection.execute(ddl(DEFAULT_SCHEMA).encode())
    return shared_url


@pytest.fixture
def tables(url: str) -> Iterator[Tables]:
    """What is in the database of `url`."""
    with Tables(url) as tables:
        yield tables


@pytest.fixture
def proxy(url: str) -> Iterator[PostgresProxy]:
    """A proxy in front of the database of `url`."""
    with PostgresProxy(url) as proxy:
        yield proxy


@pytest.fixture
def facts() -> Facts:
    """A hook that keeps what it is told."""
    return Facts()


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread of its own."""
    with start_blocking_portal("asyncio") as portal:
        yield portal
        portal.call(portal.stop, True)


@pytest.fixture(params=["threads", "asyncio"])
def open_writer(request: pytest.FixtureRequest, portal: BlockingPortal) -> Iterator[OpenWriter]:
    """Makes writers: each test runs with `Writer` and with `AsyncWriter`."""
    opened: list[Caller] = []

    def open_writer(*args: object, **options: object) -> Caller:
        opened.append(partial(make_caller, portal, request.param)(*args, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_writer
    for caller in opened:
        caller.close()
