"""Databases with outbox tables, lent to one test after the other."""

from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, LiteralString
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

from .dsql.server import ON_DSQL
from .waiting import wait_until

KEEPER: LiteralString = "keeper"
"""The name of our own session in each database. Tests that count sessions leave it out."""

_LARGE: Final = 1 << 20  # bytes: deleted rows stay in their table, and would slow the next tests

_OTHERS: LiteralString = "datname = current_database() AND pid <> pg_backend_pid()"
_HANG_UP: LiteralString = (
    f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {_OTHERS}"
)
_CONNECTED: LiteralString = f"SELECT count(*) FROM pg_stat_activity WHERE {_OTHERS}"

_CATALOGS: Final[list[LiteralString]] = [
    "pg_class WHERE oid >= 16384",
    "pg_attribute WHERE attrelid >= 16384",
    "pg_attrdef WHERE oid >= 16384",
    "pg_constraint WHERE oid >= 16384",
    "pg_index WHERE indexrelid >= 16384",
    "pg_proc WHERE oid >= 16384",
    "pg_statistic WHERE starelid >= 16384",
    "pg_trigger WHERE oid >= 16384",
    "pg_type WHERE oid >= 16384",
    "pg_database WHERE datname = current_database()",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_event_trigger",
    "pg_namespace",
    "pg_policy",
    "outbox.schema_migrations",
]
_FORM: LiteralString = " UNION ALL ".join(
    [
        *(f"SELECT count(*), max(xmin::text::bigint) FROM {rows}" for rows in _CATALOGS),
        "SELECT sum(reltuples), sum(relpages) FROM pg_class WHERE oid >= 16384",
    ]
)
"""Its answer changes with each table, right, setting and statistic."""

_SIZE: LiteralString = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE oid >= 16384"

_TABLES: LiteralString = """SELECT quote_ident(relname) FROM pg_class
    WHERE relnamespace = 'outbox'::regnamespace AND relkind = 'r'
    AND relname NOT IN ('outbox_leases', 'outbox_targets', 'schema_migrations')"""

_DROP_TABLES_OF_THE_TEST: LiteralString = """SELECT format('DROP TABLE %s CASCADE',
    string_agg(oid::regclass::text, ', ')) FROM pg_class
    WHERE relnamespace = to_regnamespace('public') AND relkind = 'r' HAVING count(*) > 0"""

_NEW_LEASES: LiteralString = """DELETE FROM outbox.outbox_leases
      WHERE shard >= {0} OR epoch <> 0 OR owner IS NOT NULL OR expires_at IS NOT NULL;
    INSERT INTO outbox.outbox_leases (shard, epoch)
      SELECT s, 0 FROM generate_series(0, {0} - 1) AS s ON CONFLICT DO NOTHING"""

_DEFAULT_TARGET: LiteralString = """DELETE FROM outbox.outbox_targets
      WHERE (name, kind, first_shard, state) <> ('default', 'sink', 0, 'running')
        OR types IS NOT NULL;
    INSERT INTO outbox.outbox_targets (name, kind, first_shard, state)
      VALUES ('default', 'sink', 0, 'running') ON CONFLICT DO NOTHING"""


class OutboxDatabases:
    """Databases of one server, as ``schema apply`` leaves them.

    To delete the rows of a test costs a thirtieth of a new database. A database of which a test
    has changed more than rows is dropped.
    """

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._templates: dict[int, str] = {}
        self._free: dict[int, list[_Kept]] = defaultdict(list)

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database, at half the cost of `create_database`, and return its URL."""
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        with psycopg.connect(self._server.socket_url, autocommit=True) as connection:
            connection.execute(copy)
        return _beside(self._server.url, name)

    @contextmanager
    def lent(self, shards: int) -> Generator[str]:
        """The URL of a database with empty tables and nobody connected."""
        free = self._free[shards]
        while free:
            kept = free.pop()
            if kept.cleaned():
                break
            kept.close()
            self._server.drop_database(kept.name)
        else:
            kept = self._new(shards)
        yield kept.url
        free.append(kept)

    def close(self) -> None:
        """Leave the server."""
        for kept in self._free.values():
            for each in kept:
                each.close()

    def _new(self, shards: int) -> "_Kept":
        name = f"test_{uuid4().hex}"
        # The endpoint of DSQL knows the tables that were made through it.
        url = self._migrated(name, shards) if ON_DSQL else self._copied(name, shards)
        return _Kept(name, url, _beside(self._server.socket_url, name), shards)

    def _copied(self, name: str, shards: int) -> str:
        if shards not in self._templates:
            self._templates[shards] = f"template_{uuid4().hex}"
            self._migrated(self._templates[shards], shards)
        return self.create(name, self._templates[shards])

    def _migrated(self, name: str, shards: int) -> str:
        url = self.create(name)
        apply(Database(url), shards=shards)
        return url


class _Kept:
    """A database between two tests, with a session of our own in it."""

    def __init__(self, name: str, url: str, own_url: str, shards: int) -> None:
        self.name = name
        self.url = url
        self._own_url = own_url
        self._own = self._connected()
        self._form = self._own.execute(_FORM).fetchall()
        deletes: list[Any] = [
            f"DELETE FROM outbox.{name}" for (name,) in self._own.execute(_TABLES)
        ]
        self._clean = "; ".join([*deletes, _DEFAULT_TARGET, _NEW_LEASES.format(shards)]).encode()

    def cleaned(self) -> bool:
        """Hang up, delete all rows and count from zero; False if more than rows was changed."""
        try:
            hung_up = self._number(_HANG_UP)
        except psycopg.OperationalError:  # the test has hung up on all, or stopped the server
            self._own = self._connected()
            hung_up = self._number(_HANG_UP)
        if hung_up:
            wait_until(lambda: self._number(_CONNECTED) == 0)
        for (drop,) in self._own.execute(_DROP_TABLES_OF_THE_TEST).fetchall():
            self._own.execute(drop)
        try:
            if self._own.execute(_FORM).fetchall() != self._form or self._number(_SIZE) > _LARGE:
                return False
        except psycopg.ProgrammingError:  # a table is missing
            return False
        self._own.execute(self._clean)
        self._own.execute("SELECT pg_stat_force_next_flush()")  # our deletes, or they come later
        self._own.execute("SELECT pg_stat_reset()")
        return True

    def close(self) -> None:
        self._own.close()

    def _connected(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._own_url, autocommit=True, application_name=KEEPER)

    def _number(self, query: LiteralString) -> int:
        row = self._own.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def _beside(url: str, name: str) -> str:
    """The URL of another database of the server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
