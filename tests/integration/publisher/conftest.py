"""The database of the relay's tests."""

import pytest

from dsql_outbox.outbox import Database


@pytest.fixture
def shards() -> int:
    """How many shards the tables have."""
    return 4


@pytest.fixture
def database(outbox_url: str) -> Database:
    """A new database with outbox tables."""
    return Database(outbox_url)
