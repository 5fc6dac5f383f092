"""What the tests of the writer on a healthy database share, and those of the relay."""

from collections.abc import Iterator

import pytest
from tests.support.database_roles import made_roles
from tests.support.publisher.running_relays import sql, writer
from tests.support.writer.fixtures import facts, open_writer, portal, proxy, tables, url

from dsql_outbox.outbox import Database
from dsql_outbox.schema.roles import Roles, grant

__all__ = [
    "facts",
    "open_writer",
    "portal",
    "proxy",
    "sql",
    "tables",
    "url",
    "writer",
]


@pytest.fixture
def roles(url: str) -> Iterator[Roles]:
    """A role for each duty, with its rights in the database of `url`."""
    with made_roles(url) as roles:
        grant(Database(url), roles)
        yield roles
