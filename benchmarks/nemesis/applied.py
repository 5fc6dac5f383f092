"""The read model of a run: a row for each message, in the order in which they were applied.

It has no key, so that a message that is applied twice is there twice.
"""

from typing import Final

import psycopg

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection

from .check import Delivery
from .load import digest

TABLE: Final = """CREATE TABLE public.applied (
  n bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, key text, sequence bigint, digest bytea,
  at float8 DEFAULT extract(epoch FROM clock_timestamp()))"""


async def apply(connection: AsyncConnection, message: Message) -> None:
    """Add the row of a message."""
    await connection.execute(
        "INSERT INTO public.applied (event_id, key, sequence, digest) VALUES (%s, %s, %s, %s)",
        (
            message.event_id,
            message.key,
            int(message.headers["sequence"]),
            digest(message.payload),
        ),
    )


def applied(database: str) -> list[Delivery]:
    """What was applied, in its order."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT event_id, key, sequence, digest, at FROM public.applied ORDER BY n"
        )
        return [Delivery(*row) for row in rows]
