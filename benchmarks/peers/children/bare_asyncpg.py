"""asyncpg and four plain inserts, the parameters made beforehand."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import asyncpg
from benchmarks.peers.four_inserts import (
    batch_statement,
    columns,
    numbered,
    rows,
    single_statement,
)

from .loop import Task, in_batches, serve


def _columns_of_batches(events: Sequence[bytes]) -> list[list[list[Any]]]:
    return [columns(each) for each in in_batches(events)]


async def main(url: str) -> None:
    connection = await asyncpg.connect(url)
    one = await connection.prepare(numbered(single_statement()))
    many = await connection.prepare(numbered(batch_statement()))

    async def single(work: Sequence[tuple[Any, ...]]) -> None:
        for row in work:
            await one.fetch(*row)

    async def batch(work: Sequence[list[list[Any]]]) -> None:
        for each in work:
            await many.fetch(*each)

    await serve(single=Task(single, rows), batch=Task(batch, _columns_of_batches))
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
