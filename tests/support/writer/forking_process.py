"""A process that forks while it has connections.

Run it by `python -m tests.support.writer.forking_process KIND URL`.

Prints a JSON object of what the parent and its child were told. Warnings are errors here too.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio

from dsql_outbox.outbox import Database, Entity, Event, OutboxError, Receipt
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Transaction, Writer, WriterSettings

WRITES = 20

Told = dict[str, Any]


def event(side: str, number: int) -> Event:
    """An event of one of the two sides, which have no entity in common."""
    return Event.new("CarSold", [Entity("Car", f"{side}-{number % 3}")])


def forked(
    child: Callable[[], Told], parent: Callable[[], Told], leave: Callable[[int], object] = sys.exit
) -> Told:
    """Both at the same time; the child ends as programs do, or as one in an event loop must."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(child(), pipe)
        leave(0)
    os.close(writing)
    told = parent()
    with os.fdopen(reading) as pipe:
        told_by_child = pipe.read()
    _, status = os.wait()
    return {"parent": told, "child": json.loads(told_by_child or "null"), "status": status}


def receipts(told: list[Receipt]) -> Told:
    """What the tables are compared with."""
    return {
        str(one.event_id): [one.attempts, one.position, one.entities[0].version] for one in told
    }


def threads(url: str) -> Told:
    """`Writer`, whose parent goes on with the connection that it has."""
    with Writer(Database(url)) as writer:
        first = writer.write(event("parent", 0))

        def write(side: str) -> Told:
            return receipts([writer.write(event(side, n)) for n in range(WRITES)])

        told = forked(lambda: write("child"), lambda: write("parent"))
        return told | {"again": receipts([first, writer.write(event("parent", 0))])}


def tasks(url: str, settings: WriterSettings) -> Told:
    """`AsyncWriter`, in an event loop of each side's own."""
    writer = AsyncWriter(Database(url), settings)

    async def write(side: str) -> Told:
        told = receipts([await writer.write(event(side, n)) for n in range(WRITES)])
        if side == "child":
            await writer.close()
        return told

    first = anyio.run(write, "first")
    told = forked(lambda: anyio.run(write, "child"), lambda: anyio.run(write, "parent"))
    again = anyio.run(write, "again")
    anyio.run(writer.close)
    return told | {"again": first | again}


def inside(url: str) -> Told:
    """A fork in the function that was given to `transact`."""
    told: Told = {}

    def child(connection: Connection) -> Told:
        try:
            connection.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - which one is the answer
            return {"error": str(error), "closed": connection.closed}
        return {"error": None}

    def function(transaction: Transaction) -> Receipt:
        connection = transaction.connection
        assert isinstance(connection, Connection)
        told.update(forked(lambda: child(connection), dict))
        return transaction.append(event("parent", 0))

    with Writer(Database(url)) as writer:
        return told | {"again": receipts([writer.transact(function)])}


def publisher(url: str) -> Told:
    """A child inherits a publisher that relays; the parent's goes on."""
    return anyio.run(_publisher, url)


async def _publisher(url: str) -> Told:
    sink = MemorySink()
    database = Database(url)
    async with AsyncWriter(database) as writer, Publisher(database, sink) as relay:
        await writer.write(event("parent", 0))
        await sink.published(1)
        told = forked(lambda: _inherited(relay), dict, os._exit)
        await writer.write(event("parent", 1))
        await sink.published(2)
        shards = sorted(relay._leases.shards)
    return told | {"delivered": len(sink.messages), "shards": shards}


def _inherited(relay: Publisher) -> Told:
    async def refused(use: Callable[[], Awaitable[object]]) -> str:
        try:
            await use()
        except OutboxError as error:
            return str(error)
        return "done"

    relay.stop()
    uses = {"run": relay.run, "read": partial(relay._store.is_done, [0])}
    return {name: asyncio.run(refused(use)) for name, use in uses.items()}


KINDS: dict[str, Callable[[str], Told]] = {
    "threads": threads,
    "asyncio": lambda url: tasks(url, WriterSettings()),
    "coalescing": lambda url: tasks(url, WriterSettings(coalesce=2)),
    "inside": inside,
    "publisher": publisher,
}


if __name__ == "__main__":
    _, kind, url = sys.argv
    # One write: the child's part of the standard output is none of its own.
    os.write(1, json.dumps(KINDS[kind](url)).encode())
