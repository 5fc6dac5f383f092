"""`append_to` on a connection of asyncpg beside asyncpg's own execution of the same statement."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import asyncpg
from benchmarks.measure import median_ratio
from benchmarks.relay.rows import new_database
from benchmarks.sample_event import sample_events
from benchmarks.writer.statement_parameters import single

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer import AsyncWriter

from .conditions import Conditions

_A_TURN = 100
"""Events of one transaction, whose COMMIT is not timed."""

_TURNS = 10  # pairs of turns in a round

_QUERY = numbered("event_write_one", statement("event_write_one", "outbox"))
_TEXT = _QUERY.text.decode()

Append = Callable[[bytes], Awaitable[float]]
"""Writes an event, and returns the seconds that this took."""


def append_to(conditions: Conditions) -> list[float]:
    """Events per second of `append_to` over those of the bare statement."""
    return [asyncio.run(_ratio(conditions))]


async def _ratio(conditions: Conditions) -> float:
    url = new_database(conditions.server, "append")
    connection = await asyncpg.connect(url)

    async def bare(event: bytes) -> float:
        parameters = single(event)
        began = perf_counter()
        await connection.fetch(_TEXT, *(parameters[name] for name in _QUERY.parameters))
        return perf_counter() - began

    async with AsyncWriter(Database(url)) as writer:

        async def ours(event: bytes) -> float:
            began = perf_counter()
            await writer.append_to(connection, event)
            return perf_counter() - began

        for n in range(2):  # a writer's first use, and the prepared statement
            await _turn(connection, ours, n)
            await _turn(connection, bare, n)
        pairs = [
            (await _turn(connection, ours, n), await _turn(connection, bare, n))
            for n in range(_TURNS * conditions.sizes.rounds)
        ]
    await connection.close()
    return median_ratio([theirs for _, theirs in pairs], [mine for mine, _ in pairs])


async def _turn(connection: Any, append: Append, number: int) -> float:
    """The seconds of the statements of a transaction."""
    events = sample_events(number * _A_TURN, _A_TURN)
    async with connection.transaction():
        return sum([await append(event) for event in events])
