"""Reads that are retried after a conflict.

On Aurora DSQL a statement that only reads can also conflict: after a table
changed, the next statement of each session fails once with OC001.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg.errors import SerializationFailure

from dsql_outbox.outbox import AsyncConnection, Connection

_TRIES: Final = 4


def read(connection: Connection, query: bytes) -> Sequence[Sequence[Any]]:
    """Run a statement and return its rows.

    Raises the driver's errors; a conflict only at the fourth try.
    """
    for _ in range(_TRIES - 1):
        try:
            return connection.execute(query).fetchall()
        except SerializationFailure:
            pass
    return connection.execute(query).fetchall()


async def read_async(connection: AsyncConnection, query: bytes) -> Sequence[Sequence[Any]]:
    """Run a statement and return its rows, as `read` does."""
    for _ in range(_TRIES - 1):
        try:
            return await (await connection.execute(query)).fetchall()
        except SerializationFailure:
            pass
    return await (await connection.execute(query)).fetchall()
