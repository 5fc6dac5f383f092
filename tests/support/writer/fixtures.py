"""Fixtures for tests of the writer; a conftest imports those that its folder needs."""

from collections.abc import Iterator
from functools import partial

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from tests.support.dsql.server import KINDS
from tests.support.outbox_databases import OutboxDatabases
from tests.support.proxy.postgres_proxy import PostgresProxy

from .callers import Caller, Facts, OpenWriter, make_caller
from .checked_tables import Tables


@pytest.fixture
def url(outbox_databases: OutboxDatabases) -> Iterator[str]:
    """A database with empty outbox tables, and nobody connected."""
    with outbox_databases.lent(shards=16) as url:
        yield url


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


@pytest.fixture(params=KINDS)
def open_writer(request: pytest.FixtureRequest, portal: BlockingPortal) -> Iterator[OpenWriter]:
    """Makes writers: each test runs with `Writer` and with `AsyncWriter`."""
    opened: list[Caller] = []

    def open_writer(*args: object, **options: object) -> Caller:
        opened.append(partial(make_caller, portal, request.param)(*args, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_writer
    for caller in opened:
        caller.close()
