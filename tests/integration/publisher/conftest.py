"""The database of the relay's tests."""

import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply


@pytest.fixture
def shards() -> int:
    """How many shards the tables have."""
    return 4


@pytest.fixture
def database(database_url: str, shards: int) -> Database:
    """A new database with outbox tables."""
    database = Database(database_url)
    apply(database, shards=shards)
    return database
