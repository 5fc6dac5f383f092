"""The database of the relay's tests."""

from collections.abc import Iterator

import pytest

from dsql_outbox.outbox import Database
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
