"""psycopg with prepared statements, all parameters made beforehand.

``bare_psycopg URL async`` and ``bare_psycopg URL sync``. A batch is four plain inserts. A
single event is the library's own statement, so that the difference is the library's own cost.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence

import psycopg
from benchmarks.peers.four_inserts import batch_statement
from benchmarks.peers.four_inserts_as_text import batch_parameters
from benchmarks.writer.statement_parameters import single

from dsql_outbox.schema.named_statements import statement

from .loop import Task, in_batches, serve

Work = Sequence[Mapping[str, str | None]]

ONE, MANY = statement("event_write_one", "outbox"), batch_statement().encode()


def _singles(events: Sequence[bytes]) -> Work:
    return [single(event) for event in events]


def _batches(events: Sequence[bytes]) -> Work:
    return [batch_parameters(each) for each in in_batches(events)]


async def by_async_connection(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def one(work: Work) -> None:
            for parameters in work:
                await (await connection.execute(ONE, parameters, prepare=True)).fetchone()

        async def many(work: Work) -> None:
            for parameters in work:
                await connection.execute(MANY, parameters, prepare=True)

        await serve(single=Task(one, _singles), batch=Task(many, _batches))


async def by_connection(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:

        async def one(work: Work) -> None:
            for parameters in work:
                connection.execute(ONE, parameters, prepare=True).fetchone()

        async def many(work: Work) -> None:
            for parameters in work:
                connection.execute(MANY, parameters, prepare=True)

        await serve(single=Task(one, _singles), batch=Task(many, _batches))


if __name__ == "__main__":
    asyncio.run({"async": by_async_connection, "sync": by_connection}[sys.argv[2]](sys.argv[1]))
