"""One visit to a database: its connection, and what several checks want to know of it."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from dsql_outbox.cli.status.backlog import Status, read_status
from dsql_outbox.outbox import Connection, Database
from dsql_outbox.schema import Drift, check, statement

PATIENCE: Final = 15.0
"""Seconds that one question may take before the doctor goes on to the next."""


class Visit:
    """A context manager; raises the driver's `OperationalError` if there is no way in."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.schema = database.schema
        self.connection = self.connect()

    def connect(self) -> Connection:
        """One more connection, which ends with the patience."""
        connection = self.database.connect(timeout=PATIENCE)
        connection.deadline = monotonic() + PATIENCE
        return connection

    def begin_question(self) -> None:
        """Start anew with the patience; a connection that the last question lost is replaced."""
        if self.connection.closed:
            self.connection = self.connect()
        self.connection.rollback()
        self.connection.deadline = monotonic() + PATIENCE

    def rows(
        self, name: str, parameters: Mapping[str, object] | None = None, **literals: int | str
    ) -> Sequence[Sequence[Any]]:
        """Run a named statement; what it returns."""
        return run(self.connection, self.schema, name, parameters, **literals)

    @cached_property
    def is_dsql(self) -> bool:
        """Whether Aurora DSQL answers, which alone has ``sys.jobs``."""
        try:
            self.rows("doctor_jobs")
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return False
        except psycopg.errors.InsufficientPrivilege:
            return True
        return True

    @cached_property
    def drifts(self) -> Sequence[Drift]:
        """What `schema check` finds."""
        return check(self.database)

    @cached_property
    def status(self) -> Status:
        """What `status` reads."""
        return read_status(self.database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()


def run(
    connection: Connection,
    schema: str,
    name: str,
    parameters: Mapping[str, object] | None = None,
    /,
    **literals: int | str,
) -> Sequence[Sequence[Any]]:
    """Run a named statement on this connection; what it returns."""
    # Without the comment on top: emulators look at the first word.
    query = re.sub(rb"^--.*\n", b"", statement(name, schema, **literals), flags=re.MULTILINE)
    cursor = connection.execute(query, parameters)
    return cursor.fetchall() if cursor.description else []
