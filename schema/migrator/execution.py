"""Run one statement of a migration, again if another session was in its way."""

import random
from collections.abc import Mapping
from time import sleep
from typing import Any, Final

import psycopg

from dsql_outbox.outbox import Connection

_RACES: Final = frozenset(
    {
        "23505",  # PostgreSQL: both insert the same name into the catalog
        "42P06",  # PostgreSQL: the schema exists by now
        "42P07",  # PostgreSQL: the table exists by now
        "42710",  # PostgreSQL: the table's row type exists by now
        "XX000",  # PostgreSQL: "tuple concurrently updated"; DSQL: "server unavailable"
        "40P01",  # PostgreSQL: deadlock, of a backfill with writers or of two index builds
        "40001",  # DSQL: "schema has been updated by another transaction (OC001)"
    }
)

_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)  # seconds, before jitter


def execute(
    connection: Connection, query: bytes, parameters: Mapping[str, object] | None = None
) -> psycopg.Cursor[Any]:
    """Run one statement that may run twice; up to 8 tries within about 4 seconds.

    Raises the driver's last error when all tries met a race, and any other
    error at once.
    """
    for wait in _WAITS:
        try:
            return connection.execute(query, parameters)
        except psycopg.Error as error:
            if error.sqlstate not in _RACES:
                raise
        sleep(wait * random.uniform(1.0, 1.25))  # noqa: S311 - jitter, no secret
    return connection.execute(query, parameters)
