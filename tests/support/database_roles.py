"""Database roles of a test's own, with the rights of their duties."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from dsql_outbox.schema.roles import DUTIES, Roles


@contextmanager
def made_roles(url: str, names: Roles | None = None) -> Iterator[Roles]:
    """Roles that exist in this block; their rights in the database of `url` go with them."""
    mark = uuid4().hex[:8]
    roles = names or Roles(*(f"{duty}_{mark}" for duty in DUTIES))
    with psycopg.connect(url, autocommit=True) as connection:
        for role in roles.by_name():
            connection.execute(creation(url, role))
        yield roles
        for role in roles.by_name():
            for query in ("DROP OWNED BY {}", "DROP ROLE {}"):
                connection.execute(sql.SQL(query).format(sql.Identifier(role)))


def creation(url: str, role: str) -> sql.Composed:
    """The statement that makes a role with the password of the URL."""
    text = sql.SQL("CREATE ROLE {} WITH LOGIN PASSWORD {}")
    return text.format(sql.Identifier(role), urlsplit(url).password)


def as_role(url: str, role: str | None) -> str:
    """The URL of the same database for a role with the same password."""
    assert role
    found = urlsplit(url)
    login = f"{quote(role)}:{found.password}" if found.password else quote(role)
    return found._replace(netloc=f"{login}@{found.hostname}:{found.port}").geturl()
