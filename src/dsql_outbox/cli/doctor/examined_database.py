"""The database under examination: its connection, and readings that several checks share."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from dsql_outbox.outbox import Connection, Database
from dsql_outbox.publisher import Status, StatusReader
from dsql_outbox.schema import Drift, check, has_jobs, statement

PATIENCE: Final = 15.0
"""Seconds that one check may take before the doctor continues with the next."""


class ExaminedDatabase:
    """A connection to the examined database, as a context manager.

    Creating it raises the driver's `OperationalError` if the database cannot be
    reached.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.schema = database.schema
        self.connection = self.connect()

    def connect(self) -> Connection:
        """Open one more connection, which may be used for `PATIENCE` seconds."""
        connection = self.database.connect(timeout=PATIENCE)
        connection.deadline = monotonic() + PATIENCE
        return connection

    def begin_question(self) -> None:
        """Start the time of the next check, with a new connection if the last check lost it."""
        if self.connection.closed:
            self.connection = self.connect()
        self.connection.rollback()
        self.connection.deadline = monotonic() + PATIENCE

    def rows(
        self, name: str, parameters: Mapping[str, object] | None = None, **literals: int | str
    ) -> Sequence[Sequence[Any]]:
        """Run a named statement and return its rows. Raises the driver's errors."""
        return run(self.connection, self.schema, name, parameters, **literals)

    @cached_property
    def is_dsql(self) -> bool:
        """Whether this is Aurora DSQL: only there does ``sys.jobs`` exist."""
        return has_jobs(self.connection)

    @cached_property
    def drifts(self) -> Sequence[Drift]:
        """The differences that `schema check` reports."""
        return check(self.database)

    @cached_property
    def status(self) -> Status:
        """The state of the outbox, as `status` reads it."""
        return asyncio.run(_read_status(self.database))

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
    """Run a named statement on `connection` and return its rows. Raises the driver's errors."""
    # Strip the comment on top, because emulators decide by the first word of a statement.
    query = re.sub(rb"^--.*\n", b"", statement(name, schema, **literals), flags=re.MULTILINE)
    cursor = connection.execute(query, parameters)
    return cursor.fetchall() if cursor.description else []


async def _read_status(database: Database) -> Status:
    async with StatusReader(database) as reader:
        return await reader.read()
