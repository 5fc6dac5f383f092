"""A table behind a proxy."""

from collections.abc import Iterator

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.proxy_clients import SyncClient

from dsql_outbox.testing import EmbeddedPostgres


@pytest.fixture(scope="session")
def database(postgres: EmbeddedPostgres) -> str:
    """One for all: to make a table is much quicker than to make a database."""
    return postgres.create_database("proxy")


@pytest.fixture
def url(database: str) -> str:
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute("CREATE TABLE t (n int PRIMARY KEY)")
    return database


@pytest.fixture
def proxy(url: str) -> Iterator[PostgresProxy]:
    with PostgresProxy(url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: PostgresProxy) -> Iterator[SyncClient]:
    with psycopg.connect(proxy.url, autocommit=True) as connection:
        yield connection
