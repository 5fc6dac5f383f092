"""A database of each test's own, as `schema apply` leaves it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture
def shards() -> int:
    """How many shards the tables have."""
    return 3


@pytest.fixture
def url(outbox_url: str) -> str:
    """A new database with outbox tables and three shards."""
    return outbox_url


@pytest.fixture
def sql(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database of `url`, beside the command's."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
