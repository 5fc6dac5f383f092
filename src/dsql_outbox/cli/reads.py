"""Reading that goes on when the tables change.

On Aurora DSQL a statement that only reads meets a conflict, too: OC001, once in each
session after a table was changed. It has passed at the next try.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg.errors import SerializationFailure

from dsql_outbox.outbox import AsyncConnection, Connection

_TRIES: Final = 4


def read(connection: Connection, query: bytes) -> Sequence[Sequence[Any]]:
    """The rows of a statement; raises the driver's errors, a conflict at the fourth try."""
    for _ in range(_TRIES - 1):
        try:
            return connection.execute(query).fetchall()
        except SerializationFailure:
            pass
    return connection.execute(query).fetchall()


async def read_async(connection: AsyncConnection, query: bytes) -> Sequence[Sequence[Any]]:
    """The same in asyncio."""
    for _ in range(_TRIES - 1):
        try:
            return await (await connection.execute(query)).fetchall()
        except SerializationFailure:
            pass
    return await (await connection.execute(query)).fetchall()
