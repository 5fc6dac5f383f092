"""A database behind the rules of DSQL's transactions."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.support.clock import Clock
from tests.support.dsql.governed import GovernedPostgres
from tests.support.writer.fixtures import portal, tables, url

__all__ = ["clock", "governed", "portal", "tables", "url"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def governed(url: str, clock: Clock) -> Iterator[GovernedPostgres]:
    """The rules in front of the outbox tables, and of others as the records have them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA records")
        connection.execute(
            "CREATE TABLE records.baseline_parent (id uuid PRIMARY KEY, name text);"
            "CREATE TABLE records.baseline_bulk (id int);"
            "CREATE TABLE records.baseline_implicit_bulk (id int)"
        )
    with GovernedPostgres(f"{url}?options=-c%20search_path%3Drecords", clock=clock) as proxy:
        yield proxy
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "DROP SCHEMA records CASCADE"
        )  # so that the next test gets this database
