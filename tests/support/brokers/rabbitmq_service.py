"""The consumer of examples/rabbitmq with a handler that uses the inbox, and fails at times.

    python -m tests.support.brokers.rabbitmq_service DATABASE_URL QUEUE..

It adds a row to `handled` for each message. Every seventh call fails before that, and every
eleventh one after it.
"""

import asyncio
import sys
from contextlib import suppress
from itertools import count
from types import ModuleType

from psycopg import AsyncConnection
from tests.support.checkout import ROOT

from dsql_outbox import Database
from dsql_outbox.inbox import AsyncInbox, Received

TABLE = """
CREATE TABLE handled (
    number bigint GENERATED ALWAYS AS IDENTITY,
    subject text,
    sequence int
)
"""


def new_consumer() -> ModuleType:
    """The module of the example, executed anew."""
    consumer = ModuleType("consumer")
    source = (ROOT / "examples/rabbitmq/consumer.py").read_text(encoding="utf-8")
    exec(compile(source, "consumer.py", "exec"), vars(consumer))
    vars(consumer)["WAIT"] = 0.02
    return consumer


async def _serve(url: str, numbers: list[int]) -> None:
    calls = count(1)

    async def handle(message: Received) -> None:
        call = next(calls)
        if call % 7 == 0:
            raise RuntimeError("the handler fails before its effect")

        async def effect(connection: AsyncConnection) -> None:
            insert = "INSERT INTO public.handled (subject, sequence) VALUES (%s, %s)"
            await connection.execute(insert, (message.key, int(message.headers["sequence"])))

        await inbox.once(message, effect)
        if call % 11 == 0:
            raise RuntimeError("the handler fails after its effect")

    consumer = new_consumer()
    vars(consumer)["handle"] = handle
    async with AsyncInbox(Database(url), "billing") as inbox:
        await consumer.main(numbers)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1], [int(word) for word in sys.argv[2:]]))
