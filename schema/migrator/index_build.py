"""Build an index without blocking the writers, or finish a build that an earlier run began.

Aurora DSQL builds an index in the background (``CREATE INDEX ASYNC``) and lists the build in
``sys.jobs``. PostgreSQL builds it within the statement (``CONCURRENTLY``). On both a failed
build leaves an invalid index, and ``IF NOT EXISTS`` accepts that index as the real one. So
this module polls the catalog and trusts nothing else. It does not call ``sys.wait_for_job``,
because DSQL ends a statement after 5 minutes.
"""

from time import sleep
from typing import Any, Final, Literal, LiteralString, cast

import psycopg
from psycopg import sql

from dsql_outbox.outbox import Connection, FailureKind, SchemaError, kind_of
from dsql_outbox.schema.named_statements import compose, execute, render, statement

from .migration import Migration
from .migration_text import Index
from .remedies import Remedies
from .shape import read_indexes

_POLL: Final = 0.5  # seconds; observed builds took from 5 seconds to 12 minutes
_BUILDS: Final = 3
_ENDED: Final = ("completed", "failed", "cancelled", "canceled")

_State = Literal["missing", "valid", "building", "broken"]


class IndexBuild:
    """The build of one index in one schema."""

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
        """Return when the index is valid; this may take as long as it needs.

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
                    f"tries: {self._why}; when that is corrected, run {again}"
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
        # Ask for the build first: if it ends between the two reads, the second finds a valid index.
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
    """Whether the server has ``sys.jobs`` and builds indexes in the background: Aurora DSQL."""
    try:
        execute(connection, statement("index_jobs", ""))
    except psycopg.errors.InsufficientPrivilege:
        pass  # the view exists, and this role may not read it
    except psycopg.Error as error:
        if kind_of(error) is not FailureKind.TABLES_MISSING:
            raise
        return False
    return True


def create_index(migration: Migration, schema: str, *, is_dsql: bool) -> bytes:
    """The CREATE INDEX of a migration: ASYNC for Aurora DSQL, CONCURRENTLY for PostgreSQL."""
    text = migration.text
    if not is_dsql:
        text = cast("LiteralString", text.replace(" ASYNC ", " CONCURRENTLY ", 1))  # type: ignore[redundant-cast]
    return render(text, schema)
