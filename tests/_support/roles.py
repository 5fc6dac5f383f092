"""Database roles of a test's own, with the rights of their duties."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from dsql_outbox.schema import Roles


@contextmanager
def made_roles(url: str, names: Roles | None = None) -> Iterator[Roles]:
    """Roles that exist in this block; their rights in the database of `url` go with them."""
    mark = uuid4().hex[:8]
    roles = names or Roles(f"writer_{mark}", f"publisher_{mark}", f"operator_{mark}")
    with psycopg.connect(url, autocommit=True) as connection:
        for role in roles.by_name():
            connection.execute(sql.SQL("CREATE ROLE {} WITH LOGIN").format(sql.Identifier(role)))
        yield roles
        for role in roles.by_name():
            for query in ("DROP OWNED BY {}", "DROP ROLE {}"):
                connection.execute(sql.SQL(query).format(sql.Identifier(role)))


def as_role(url: str, role: str | None) -> str:
    """The URL of the same database for a role; the embedded server asks for no password."""
    assert role
    found = urlsplit(url)
    return found._replace(netloc=f"{quote(role)}@{found.hostname}:{found.port}").geturl()
