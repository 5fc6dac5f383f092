"""Run one statement of a migration, and again if another session interfered."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import psycopg

from dsql_outbox.outbox import RACES, SERVER_TROUBLE, Connection, FailureKind, RetryPolicy

# PostgreSQL: two sessions that create the same thing collide in the catalog (COLLISION), find
# it there (EXISTS), update it at once (INTERNAL), or deadlock, as a backfill with writers
# does (CONFLICT). DSQL: the schema was updated by another transaction, or it is busy.
RETRIES: Final = RetryPolicy(
    RACES | SERVER_TROUBLE | {FailureKind.EXISTS},
    waits=(0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
)


def execute(
    connection: Connection, query: bytes, parameters: Mapping[str, object] | None = None
) -> psycopg.Cursor[Any]:
    """Run one statement that may run twice; up to 13 tries within about 9 seconds.

    Raises the driver's last error when all tries met a race, and any other
    error immediately.
    """
    return RETRIES.run(partial(connection.execute, query, parameters))
