"""Lone events from another process: how long each waits, and what an idle publisher costs.

``python -m benchmarks.relay.lone_events --every 0.5 --events 60`` prints percentiles of the time
from the commit to the sink, and the CPU of the server and of the publishers while nothing happens.
"""

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import psycopg
from benchmarks.sample_event import event

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Delivered, Publisher, PublisherSettings
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer import AsyncWriter, WriterSettings

from .nats import part
from .rows import new_database

_SETTLED = 4.0  # seconds until the reads are prepared, and the publishers share the shards
_PIDS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_HELD = "SELECT count(*) FROM outbox.outbox_leases WHERE owner IS NOT NULL"


class _Telling:
    """A sink that tells when it got each message."""

    system = "null"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        now = monotonic()
        for index, message in enumerate(messages):
            print(message.event_id, now, flush=True)
            answer(index, Delivered())


async def _publish(url: str, idle_max: float | None, *, doorbell: bool) -> None:
    settings = PublisherSettings(idle_max=idle_max, doorbell=doorbell)
    await Publisher(Database(url), _Telling(), settings).run()


class _Child:
    """A publisher in a process of its own."""

    def __init__(self, arrived: dict[str, float]) -> None:
        self._arrived = arrived

    async def start(self, options: argparse.Namespace, url: str) -> None:
        given = [] if options.idle_max is None else ["--idle-max", str(options.idle_max)]
        given += ["--doorbell"] if options.doorbell else []
        command = [sys.executable, "-m", "benchmarks.relay.lone_events", "--publish", url, *given]
        self.process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        if self.process.stdout is not None:
            async for line in self.process.stdout:
                event_id, at = line.decode().split()
                self._arrived[event_id] = float(at)

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()
        await self._reading


def _cpu(pids: Sequence[int]) -> float:
    """Return the seconds of CPU that processes have taken."""
    times = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in times) / os.sysconf("SC_CLK_TCK")


async def _measure(options: argparse.Namespace, url: str) -> None:
    arrived: dict[str, float] = {}
    committed: dict[str, float] = {}
    children = [_Child(arrived) for _ in range(options.publishers)]
    for child in children:
        await child.start(options, url)
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(_HELD).fetchone() != (16,):  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.1)
        await asyncio.sleep(_SETTLED)
        servers = [pid for (pid,) in connection.execute(_PIDS)]
        ours = [child.process.pid for child in children]
        before, began = (_cpu(servers), _cpu(ours)), monotonic()
        await asyncio.sleep(options.idle)
        took = monotonic() - began
        server, own = _cpu(servers) - before[0], _cpu(ours) - before[1]
    print(f"idle: server {server / took:.2%}, publishers {own / took:.2%} of a core")
    settings = WriterSettings(doorbell=options.doorbell)
    async with AsyncWriter(Database(url), settings) as writer:
        for n in range(options.events):
            receipt = await writer.write(event(f"CAR-{n % 50}", n))
            committed[str(receipt.event_id)] = monotonic()
            await asyncio.sleep(options.every * random.uniform(0.5, 1.5))
        await asyncio.sleep(2.0)
    for child in children:
        await child.stop()
    waits = sorted(max(0.0, arrived[each] - at) * 1000 for each, at in committed.items())
    shown = ", ".join(f"p{p} {part(waits, p / 100):.1f}" for p in (50, 90, 99))
    print(f"{len(waits)} events, one every {options.every:g} s: {shown}, max {waits[-1]:.1f} ms")


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two events")
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of rest to measure")
    parser.add_argument("--publishers", type=int, default=1)
    parser.add_argument("--idle-max", type=float)
    parser.add_argument("--doorbell", action="store_true")
    parser.add_argument("--publish", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        asyncio.run(_publish(options.publish, options.idle_max, doorbell=options.doorbell))
        return
    with EmbeddedPostgres() as server:
        asyncio.run(_measure(options, new_database(server, "lone")))


if __name__ == "__main__":
    _main()
