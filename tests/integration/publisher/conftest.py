"""The database of the relay's tests."""

from collections.abc import AsyncGenerator, Iterator

import psycopg
import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Targets
from dsql_outbox.testing import PostgresProxy


@pytest.fixture
def shards() -> int:
    """How many shards the tables have."""
    return 4


@pytest.fixture
def database(outbox_url: str) -> Database:
    """A new database with outbox tables."""
    return Database(outbox_url)


@pytest.fixture
def proxy(outbox_url: str) -> Iterator[PostgresProxy]:
    """A proxy in front of the tables of `database`."""
    with PostgresProxy(outbox_url) as proxy:
        yield proxy


@pytest.fixture
def holder(outbox_url: str) -> Iterator[psycopg.Connection]:
    """A connection whose transactions are the test's."""
    with psycopg.connect(outbox_url) as connection:
        yield connection


@pytest.fixture
async def targets(database: Database) -> AsyncGenerator[Targets]:
    """What adds, fills and drops targets."""
    async with Targets(database) as targets:
        yield targets
