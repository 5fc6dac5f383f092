"""Run one statement of a migration, and again if another session interfered."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import psycopg

from dsql_outbox.outbox import MIGRATION, Connection


def execute(
    connection: Connection, query: bytes, parameters: Mapping[str, object] | None = None
) -> psycopg.Cursor[Any]:
    """Run one statement that may run twice; up to 13 tries within about 9 seconds.

    Raises the driver's last error when all tries met a race, and any other
    error immediately.
    """
    return MIGRATION.run(partial(connection.execute, query, parameters))
