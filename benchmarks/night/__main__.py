"""``make night``: a publisher and a writer at the defaults, and a restart of each part every hour.

The parts are the writer, the publisher, NATS and PostgreSQL, each restarted in order, one after
the other. Every ten seconds it looks at memory, connections, dead rows and waiting messages. At
the end it compares what the broker got with the tables, and the last hour with the first. Exits
with 1 if an event was lost or came out of order, or if the end is not as the start.
"""

import argparse
import asyncio
import json
import shutil
import sys
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp
from time import time
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
from benchmarks.measure import load, machine
from benchmarks.nemesis.check import first_deliveries, judge
from benchmarks.nemesis.fleet import Fleet, Member, cancel_on_sigterm
from benchmarks.nemesis.world import delivered, drained, make_stream, stored
from benchmarks.writer.write_command import resident
from tests.support.verified import findings_in

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres, NatsServer

from .kept import Night, Sample, rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LOOK = 10.0  # seconds
_DRAIN = 300.0  # seconds
_SAMPLE = """
SELECT
  (SELECT count(*) FROM pg_stat_activity
   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
  (SELECT sum(n_dead_tup)::float8 FROM pg_stat_user_tables),
  pg_total_relation_size('outbox.outbox') / 1048576.0::float8,
  (SELECT count(*) FROM outbox.outbox)
"""


def options() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser("make night", description=__doc__)
    parser.add_argument("--hours", type=float, default=8)
    parser.add_argument("--rate", type=float, default=50, help="events per second (50)")
    parser.add_argument(
        "--every", type=float, default=60, help="minutes between two restarts of a part (60)"
    )
    parser.add_argument("--file", type=Path, default=Path("build/night.json"))
    return parser


class Run:
    """One night, from the first event to the verdict."""

    def __init__(
        self, given: argparse.Namespace, database: EmbeddedPostgres, broker: NatsServer, logs: Path
    ) -> None:
        self._given = given
        self._database = database
        self._broker = broker
        self._notes = logs / "events"
        self._kept = logs / "samples.jsonl"
        words = ["--database", database.url, "--sink", broker.url]
        self._fleet = Fleet(1, [sys.executable], words, logs)
        writer = [sys.executable, "-m", "benchmarks.night.writer"]
        writer += [database.url, str(given.rate), str(self._notes)]
        self._writer = Member(writer, logs / "writer.log", "writer")
        self._samples: list[Sample] = []
        self._restarts: list[tuple[float, str]] = []
        self._began = time()

    async def __call__(self) -> Night:
        """Do the run; ends both processes even if it raises."""
        cancel_on_sigterm()
        try:
            await self._fleet.start()
            await self._writer.start()
            (self._publisher,) = self._fleet.members
            self._fleet.members.append(self._writer)
            self._began = time()
            beside = [asyncio.create_task(each) for each in (self._fleet.watch(), self._look())]
            await self._restart()
            for task in beside:
                task.cancel()
            await self._writer.end()
            await drained(self._database.url, _DRAIN)
            await self._fleet.end()
            return await self._night()
        finally:
            await asyncio.shield(self._fleet.kill())

    async def _restart(self) -> None:
        """Restart the parts, at equal distances, until the time is over."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "writer": lambda: self._fleet.restart_one(self._writer),
            "publisher": lambda: self._fleet.restart_one(self._publisher),
            "NATS": partial(_restarted, self._broker),
            "PostgreSQL": partial(_restarted, self._database),
        }
        pause, ends = self._given.every * 60 / len(parts), self._given.hours * 3600
        for part in cycle(parts):
            at = (len(self._restarts) + 0.5) * pause
            await asyncio.sleep(self._began + min(at, ends) - time())
            if at > ends:
                return
            self._restarts.append((round((time() - self._began) / 60, 2), part))
            print(f"{at / 60:6.1f} min  {part} is restarted", file=sys.stderr, flush=True)
            await parts[part]()

    async def _look(self) -> None:
        while True:
            # A server that is being restarted has no answer, and a process no memory.
            with suppress(psycopg.OperationalError, FileNotFoundError):
                await self._sample()
            await asyncio.sleep(_LOOK)

    async def _sample(self) -> None:
        url = self._database.url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            ((connections, dead, size, waiting),) = await (
                await connection.execute(_SAMPLE)
            ).fetchall()
        memory = [resident(each.pid) for each in (self._publisher, self._writer)]
        if None not in memory:
            found = (*memory, connections, dead, size, waiting, load())
            sample = Sample(time() - self._began, *map(float, found))
            self._samples.append(sample)
            with self._kept.open("a") as kept:  # what is left of a night that ends badly
                print(json.dumps(sample), file=kept)

    async def _night(self) -> Night:
        given, noted = self._given, defaultdict[str, dict[UUID, bytes]](dict)
        with self._notes.open() as notes:
            for word, event_id, *said in map(str.split, notes):
                noted[word][UUID(event_id)] = bytes.fromhex("".join(said))
        found = stored(self._database.url, noted["sent"])
        deliveries = await delivered(self._broker.url)
        verdict = judge(found.committed, deliveries)
        findings = await findings_in(self._database.url)
        delays = [
            (event.at - self._began, at - event.at)
            for event, at in first_deliveries(found.committed, deliveries)
        ]
        return Night(
            date=datetime.now(UTC).date().isoformat(),
            machine=machine(),
            hours=given.hours,
            rate=given.rate,
            every=given.every,
            events=len(found.committed),
            failed=len(noted["failed"]),
            stored_twice=verdict.duplicates,
            rules={
                **verdict.counts,
                "acknowledged, not stored": len(noted["stored"].keys() - found.committed.keys()),
                "dead letters": found.dead,
                "left in the outbox": found.waiting,
                "ended by themselves": self._fleet.ended.total(),
                "did not end on SIGTERM": self._fleet.too_slow,
                "rows that verify found wrong": len(findings),
            },
            restarts=self._restarts,
            rows=list(rows(self._samples, delays, given.hours * 3600)),
        )


async def _restarted(server: EmbeddedPostgres | NatsServer) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


def main() -> int:
    """Do a night and keep it in the file."""
    given, logs = options().parse_args(), Path(mkdtemp(prefix="night-"))
    with EmbeddedPostgres() as database, NatsServer() as broker:
        apply(Database(database.url))
        asyncio.run(make_stream(broker.url))
        try:
            night = asyncio.run(Run(given, database, broker, logs)())
        except (KeyboardInterrupt, asyncio.CancelledError):
            print(f"stopped; logs: {logs}", file=sys.stderr)
            return 130
    given.file.parent.mkdir(exist_ok=True)
    given.file.write_text(json.dumps(asdict(night), indent=1) + "\n")
    print(
        f"{night.events:,} events, {night.failed} refused, {night.stored_twice} stored twice by the broker"
    )
    for rule, count in night.rules.items():
        print(f"  {'FAILED' if count else 'ok':<7}{rule}: {count:,}")
    for ends in night.ends:
        verdict = "ok" if ends.holds else "FAILED"
        print(f"  {verdict:<7}{ends.name}: {ends.start:,.1f} at first, {ends.end:,.1f} at the end")
    if night.holds:
        shutil.rmtree(logs)
    else:
        print(f"logs: {logs}", file=sys.stderr)
    return 0 if night.holds else 1


if __name__ == "__main__":
    sys.exit(main())
