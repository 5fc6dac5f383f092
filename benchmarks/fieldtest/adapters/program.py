"""The program of every adapter. Only the standard library.

``prepare URL`` makes the tables of the library, ``write URL SEED EVENTS KEYS [held]`` writes the
events, and ``relay URL PORT`` sends them to the broker on that port until it is killed.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from benchmarks.fieldtest.schedule import Event, Transaction, events, lanes

from .broker import Broker

LEASE = 3
"""Seconds after which work of a dead process is taken over, where a library has such a setting."""

Append = Callable[[Event], Awaitable[None]]
"""Stores an event in the open transaction."""

Begin = Callable[[], AbstractAsyncContextManager[Append]]
"""A transaction, committed at the end of the block."""


class Adapter(NamedTuple):
    """How a library makes its tables, writes, and relays.

    `connect` takes the URL; its block yields transactions of one connection.
    """

    prepare: Callable[[str], Awaitable[None]]
    connect: Callable[[str], AbstractAsyncContextManager[Begin]]
    relay: Callable[[str, Broker], Awaitable[None]]


def run(adapter: Adapter) -> None:
    """Do what the words of the command line say."""
    role, url, *words = sys.argv[1:]
    if role == "prepare":
        asyncio.run(_awaited(adapter.prepare(url)))
    elif role == "write":
        seed, number, keys, *held = words
        found = events(int(seed), int(number), int(keys))
        asyncio.run(_write(adapter, url, lanes(int(seed), found, bool(held))))
    else:
        asyncio.run(_awaited(adapter.relay(url, Broker(int(words[0])))))


async def _awaited(done: Awaitable[None]) -> None:
    await done


async def _write(adapter: Adapter, url: str, each: list[list[Transaction]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for lane in each:
            tasks.create_task(_write_lane(adapter, url, lane))


async def _write_lane(adapter: Adapter, url: str, lane: list[Transaction]) -> None:
    async with adapter.connect(url) as begin:
        for transaction in lane:
            async with begin() as append:
                for event in transaction.events:
                    await append(event)
                await asyncio.sleep(transaction.hold)
