"""New databases with outbox tables."""

from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

from .dsql.server import ON_DSQL


class OutboxDatabases:
    """Databases of one server, each a copy of one in which the migrations ran.

    A copy costs no more than an empty database, and the migrations more than that again.
    """

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._templates: dict[int, str] = {}

    def make(self, name: str, shards: int) -> str:
        """Make the database `name`, as ``schema apply`` leaves it, and return its URL."""
        if ON_DSQL:  # the endpoint knows the tables that were made through it
            return self._migrated(name, shards)
        if shards not in self._templates:
            self._templates[shards] = f"template_{uuid4().hex}"
            self._migrated(self._templates[shards], shards)
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(self._templates[shards])
        )
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(copy)
        return urlunsplit(urlsplit(self._server.url)._replace(path=f"/{name}"))

    def _migrated(self, name: str, shards: int) -> str:
        url = self._server.create_database(name)
        apply(Database(url), shards=shards)
        return url
