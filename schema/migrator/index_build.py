"""Build an index without stopping the writers, or finish what an earlier run began.

Aurora DSQL builds it in the background (``CREATE INDEX ASYNC``) and tells of it
in ``sys.jobs``; PostgreSQL builds it in the statement (``CONCURRENTLY``). On both
a build that fails leaves an index that is not valid behind, which ``IF NOT
EXISTS`` takes for the real one. So only the catalog is believed. It is asked again
and again: ``sys.wait_for_job`` is one statement, and DSQL ends those at 5 minutes.
"""

from time import sleep
from typing import Any, Final, Literal, LiteralString, cast

import psycopg
from psycopg import sql

from dsql_outbox.outbox import Connection, SchemaError
from dsql_outbox.schema.drift.remedies import Remedies
from dsql_outbox.schema.drift.shape import read_indexes
from dsql_outbox.schema.named_statements import compose, render, statement

from .execution import execute
from .migration import Migration
from .migration_text import Index

_POLL: Final = 0.5  # seconds; builds were seen to take from 5 seconds to 12 minutes
_BUILDS: Final = 3
_ENDED: Final = ("completed", "failed", "cancelled", "canceled")

_State = Literal["missing", "valid", "building", "broken"]


class IndexBuild:
    """One index, in one schema."""

    def __init__(
        self,
        connection: Connection,
        schema: str,
        migration: Migration,
        index: Index,
        *,
        is_dsql: bool,
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._migration = migration
        self._index = index
        self._is_dsql = is_dsql
        self._why = "no session builds it"

    def run(self) -> None:
        """Return when the index is valid, however long that takes.

        Raises `SchemaError` when three builds have failed, and the driver's errors.
        """
        builds = 0
        while (state := self._state()) != "valid":
            if state == "building":
                sleep(_POLL)
            elif builds == _BUILDS:
                again = Remedies(self._schema).apply(deploy=self._migration.deploy)
                raise SchemaError(
                    f"index {self._schema}.{self._index.name} could not be built in {builds} "
                    f"tries: {self._why}; when that is mended, run {again}"
                )
            else:
                self._build(state)
                builds += 1

    def _build(self, state: _State) -> None:
        if state == "broken":
            name = sql.Identifier(self._index.name)
            execute(self._connection, compose("index_drop", self._schema, index=name))
        query = create_index(self._migration, self._schema, is_dsql=self._is_dsql)
        execute(self._connection, query)

    def _state(self) -> _State:
        # How the build stands is asked first: what ends in between is valid then.
        building = self._is_building()
        found = read_indexes(self._connection, self._schema).get(self._index.name)
        if found is None:
            return "missing"
        if found.valid:
            return "valid"
        return "building" if building else "broken"

    def _is_building(self) -> bool:
        name = "index_job" if self._is_dsql else "index_progress"
        parameters = {"schema": self._schema, "name": self._index.name}
        row: tuple[Any, ...] | None = execute(
            self._connection, statement(name, self._schema), parameters
        ).fetchone()
        if not self._is_dsql or row is None:
            return row is not None
        status, details = row
        self._why = f"its job {status}" + (f": {details}" if details else "")
        return status not in _ENDED


def has_jobs(connection: Connection) -> bool:
    """Whether the server builds indexes in the background: it is Aurora DSQL then."""
    parameters = {"schema": "", "name": ""}
    try:
        execute(connection, statement("index_job", ""), parameters)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return False
    except psycopg.errors.InsufficientPrivilege:
        pass  # it is there, for others
    return True


def create_index(migration: Migration, schema: str, *, is_dsql: bool) -> bytes:
    """The statement of a migration that makes an index, as this kind of server takes it."""
    text = migration.text
    if not is_dsql:
        text = cast("LiteralString", text.replace(" ASYNC ", " CONCURRENTLY ", 1))  # type: ignore[redundant-cast]
    return render(text, schema)
