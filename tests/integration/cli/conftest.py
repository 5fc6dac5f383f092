"""A database of each test's own, as `schema apply` leaves it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply


@pytest.fixture
def url(database_url: str) -> str:
    """A new database with outbox tables and three shards."""
    apply(Database(database_url), shards=3)
    return database_url


@pytest.fixture
def sql(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database of `url`, beside the command's."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
