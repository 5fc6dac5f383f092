"""A process that applies events to a table, until it is killed.

Run it by `python -m tests.support.publisher.applying_process URL TARGET`.
"""

import asyncio
import sys

from dsql_outbox.outbox import Database, Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher import Publisher, PublisherSettings

SETTINGS = PublisherSettings(lease=2.0)


async def count_move(connection: AsyncConnection, message: Message) -> None:
    """Count the moves of a car; `last` becomes -1 when one is missing or comes twice."""
    version = int(message.headers["sequence"])
    await connection.execute(
        "INSERT INTO public.moves AS m VALUES (%s, 1, %s) ON CONFLICT (car)"
        " DO UPDATE SET number = m.number + 1,"
        " last = CASE WHEN m.last = excluded.last - 1 THEN excluded.last ELSE -1 END",
        (message.key, version),
    )


if __name__ == "__main__":
    url, target = sys.argv[1:]
    publisher = Publisher(Database(url), settings=SETTINGS, apply=count_move, target=target)
    asyncio.run(publisher.run())
