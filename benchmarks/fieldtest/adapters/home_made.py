"""A table and a loop: no library, but the loop of README's "Why not a table and a loop?".

It asks for the rows after the last one, sends them as a batch, sends those again that the broker
refused, and stores its place. It is what the field test must find fault with, in each column.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import sleep

import psycopg
from benchmarks.fieldtest.schedule import Event

from .broker import STORED, Broker
from .program import Adapter, Append, Begin, run

_TABLES = """
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text, number int);
CREATE TABLE place (id bigint);
INSERT INTO place VALUES (0);
"""
_INSERT = "INSERT INTO outbox (topic, number) VALUES (%s, %s)"
_READ = "SELECT id, topic, number FROM outbox WHERE id > %s ORDER BY id LIMIT 100"


async def prepare(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute(_TABLES)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Begin]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def append(event: Event) -> None:
            await connection.execute(_INSERT, (event.topic, event.number))

        @asynccontextmanager
        async def begin() -> AsyncIterator[Append]:
            async with connection.transaction():
                yield append

        yield begin


async def relay(url: str, broker: Broker) -> None:
    await asyncio.to_thread(_relay, url, broker)


def _relay(url: str, broker: Broker) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        (place,) = connection.execute("SELECT id FROM place").fetchone() or (0,)
        while True:
            rows = connection.execute(_READ, (place,)).fetchall()
            waiting = [(topic, number) for _, topic, number in rows]
            while waiting:
                waiting = [each for each in waiting if not _sent(broker, *each)]
            if rows:
                place = rows[-1][0]
                connection.execute("UPDATE place SET id = %s", (place,))
            else:
                sleep(0.01)


def _sent(broker: Broker, topic: str, number: int) -> bool:
    return broker.send_batch(topic, [number]) == [STORED]


if __name__ == "__main__":
    run(Adapter(prepare, connect, relay))
