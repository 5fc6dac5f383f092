"""What a revision of Alembic calls: one for each release, and the library's own migrator runs.

The tables are made on a connection of their own, each statement in its own transaction, as Aurora
DSQL demands. Alembic's transaction is committed before that, so that neither waits for the other.
Neither Alembic nor SQLAlchemy is imported: a revision gives what it has of them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA, Database
from dsql_outbox.outbox.errors import OutboxError, SettingsError

from .commands import drop_command
from .migrator import apply, remove, script
from .tables import TableSet

_LIBPQ: Final = ("psycopg", "psycopg2")
"""The drivers whose URL has parameters of libpq."""

_OF_ASYNCPG: Final = {"ssl": "sslmode", "host": "host", "port": "port"}
"""Parameters of a URL for asyncpg, and what libpq calls them."""


def upgrade_outbox(
    op: Any,
    *,
    url: str | None = None,
    schema: str = DEFAULT_SCHEMA,
    shards: int | None = None,
    tables: TableSet = "all",
) -> None:
    """Bring the tables of `schema` to the version of the library that is installed.

    `op` is ``alembic.op``. The address is that of Alembic's connection, with its user and password,
    or `url`, as for `Database`. `shards` and `tables` are as for `apply`. What exists is left
    alone, so the revision of a later release is the same call. ``upgrade --sql`` prints the
    statements.

    Raises the errors of `apply`, and `SettingsError` if Alembic's engine has an address that
    `Database` cannot take.
    """

    def work() -> None:
        apply(_database(op, url, schema), shards=shards, tables=tables)

    statements = script(schema, shards, tables)
    _outside_of_the_transaction(op, work, offline=statements)


def downgrade_outbox(op: Any, *, url: str | None = None, schema: str = DEFAULT_SCHEMA) -> None:
    """Drop the tables of `schema`, unless an event or a handled message is stored in them.

    This is for the first revision. That of a later release has nothing to take back: the code of
    an earlier release works on newer tables. ``downgrade --sql`` prints a comment, since it
    cannot look.

    Raises `SchemaError` if something is stored, and otherwise as `upgrade_outbox`.
    """

    def work() -> None:
        remove(_database(op, url, schema), keep_events=True)

    hint = f"-- The tables of schema {schema} stay. To drop them: {drop_command(schema)}"
    _outside_of_the_transaction(op, work, offline=[hint])


def _outside_of_the_transaction(
    op: Any, work: Callable[[], None], *, offline: Sequence[str]
) -> None:
    context = op.get_context()
    with ExitStack() as block:
        try:
            block.enter_context(context.autocommit_block())
        except AssertionError:
            raise OutboxError(
                "env.py has begun a transaction that Alembic does not know, and the tables of the "
                "outbox could wait for it: begin it by context.begin_transaction()"
            ) from None
        if not context.as_sql:
            work()
            return
        for statement in offline:
            op.execute(statement)


def _database(op: Any, url: str | None, schema: str) -> Database:
    return Database(_address(op.get_bind().engine.url) if url is None else url, schema=schema)


def _address(url: Any) -> str:
    """Return the URL of an engine as libpq takes it, with its password."""
    driver = url.get_driver_name()
    query: Mapping[str, Any] = url.query
    if driver == "asyncpg":
        query = {_OF_ASYNCPG[name]: query[name] for name in query if name in _OF_ASYNCPG}
    if url.get_backend_name() != "postgresql" or driver not in (*_LIBPQ, "asyncpg"):
        raise SettingsError(
            f"the outbox cannot take the address of an engine of {url.drivername}: "
            'give it by upgrade_outbox(op, url="postgresql://.." or "dsql://..")'
        )
    address: str = url.set(drivername="postgresql", query=query).render_as_string(
        hide_password=False
    )
    return address
