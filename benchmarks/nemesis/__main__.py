"""``make nemesis``: harm real publishers on real servers, and check the deliveries.

Events are written in the background for three targets: two brokers, and a read model. Every
few seconds one publisher is killed, or stopped past its lease and continued, or restarted.
The database crashes once and the first broker stops once, both for a while. At the end what
each target got is compared with the tables. Exits
with 1 when a rule was broken. The same seed gives the same events and choices, but not the
same timing.
"""

import argparse
import asyncio
import json
import logging
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from time import monotonic

from benchmarks.nemesis.applied import applied
from benchmarks.nemesis.check import judge
from benchmarks.nemesis.fleet import CannotRun, Fleet, cancel_on_sigterm, until
from benchmarks.nemesis.harm import Harm, Nemesis
from benchmarks.nemesis.load import Load
from benchmarks.nemesis.run_report import Progress, Result, report, result_of
from benchmarks.nemesis.world import Ear, World, delivered, drained, stored, world
from tests.support.verified import findings_in

from dsql_outbox.outbox import Database


class Run:
    """One run, from the first event to the verdict."""

    def __init__(self, given: argparse.Namespace, servers: World, logs: Path) -> None:
        random = Random(given.seed)
        self._given = given
        self._servers = servers
        self._load = Load(
            Random(random.random()), given.events, given.subjects, given.rate, given.doorbell
        )
        options = ["--database", servers.database.url, *shlex.split(given.publish_options)]
        options += ["--doorbell"] if given.doorbell else []
        words = [*options, "--sink", servers.broker.url]
        others = {
            "lake": [*options, "--target", "lake", "--sink", servers.lake.url],
            "model": [*options, "--target", "model", "--apply", "benchmarks.nemesis.applied:apply"],
        }
        pythons = [sys.executable, given.other_python or sys.executable]
        self._fleet = Fleet(given.publishers, pythons, words, logs, others)
        self._nemesis = Nemesis(random, self._fleet, every=given.every, lease=given.lease)
        self._ear = Ear()
        self._began = monotonic()

    async def __call__(self) -> Result:
        """Do the run and return its result; ends all publishers even if it raises."""
        cancel_on_sigterm()
        try:
            async with self._ear.listening(self._servers.broker.url):
                await self._fleet.start()
                await self._harm_watched()
                await self._fleet.end()
            return await self._result()
        finally:
            await asyncio.shield(self._fleet.kill())

    async def _harm_watched(self) -> None:
        """Harm until the load is done, then wait until the outbox is empty.

        Meanwhile the fleet restarts publishers that end by themselves.
        """
        beside = [
            asyncio.create_task(self._fleet.watch()),
            asyncio.create_task(Progress(sys.stderr).run(self._state)),
        ]
        try:
            await self._harm_while_writing()
            await drained(self._servers.database.url, self._given.drain)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _harm_while_writing(self) -> None:
        given, database, broker = self._given, self._servers.database, self._servers.broker
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load.run(Database(database.url)))
            if given.rolling:
                group.create_task(self._roll())
            else:
                group.create_task(self._nemesis.harm_publishers(self._done))
                group.create_task(self._nemesis.take_down(self._done, database, broker, given.down))

    async def _roll(self) -> None:
        """Restart all publishers one after the other, starting at a quarter of the load."""
        await until(lambda: self._done() >= 0.25)
        began = await self._fleet.rolling_restart(self._given.lease)
        self._nemesis.harms += [Harm("restarted", at) for at in began]

    async def _result(self) -> Result:
        found = stored(self._servers.database.url, self._load.sent)
        deliveries = await delivered(self._servers.broker.url)
        result = result_of(found, deliveries, self._nemesis, self._fleet, self._load)
        findings = await findings_in(self._servers.database.url)
        others = {
            "lake": judge(found.committed, await delivered(self._servers.lake.url)),
            "model": judge(found.committed, applied(self._servers.database.url)),
        }
        return replace(
            result, others=others, sent_again=self._ear.sent_again, findings=len(findings)
        )

    def _done(self) -> float:
        return self._load.done

    def _state(self) -> str:
        running = sum(member.runs for member in self._fleet.members)
        return (
            f"{monotonic() - self._began:4.0f} s  {self._load.outcomes.total():,} of "
            f"{self._given.events:,} events written, {running} of {len(self._fleet.members)} "
            f"publishers run, {len(self._nemesis.harms)} harmed"
        )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publishers", type=positive, default=3, help="of each target")
    parser.add_argument("--events", type=positive, default=200_000)
    parser.add_argument("--subjects", type=positive, default=5_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--rate", type=float, default=1_000, help="events written per second")
    parser.add_argument("--every", type=float, default=2, help="seconds between two harms")
    parser.add_argument("--down", type=float, default=60, help="seconds that each server is down")
    parser.add_argument("--lease", type=float, default=12, help="lease plus grace, in seconds")
    parser.add_argument("--drain", type=float, default=300, help="seconds the drain may take")
    parser.add_argument("--rolling", action="store_true", help="only restart all, one by one")
    parser.add_argument("--doorbell", action="store_true", help="writers ring, publishers hear")
    parser.add_argument("--publish-options", default="", help="further options of each publisher")
    parser.add_argument(
        "--other-python",
        metavar="PYTHON",
        help="every second publisher runs in the environment of this Python, as during an upgrade",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(given: argparse.Namespace) -> Result:
    """Start the servers and do a run; keep the logs of the publishers if a rule was broken."""
    logs = Path(mkdtemp(prefix="nemesis-"))
    keep = False
    try:
        with world() as servers:
            result = asyncio.run(Run(given, servers, logs)())
        keep = not result.holds
        if keep:
            print(f"logs of the publishers: {logs}", file=sys.stderr)
        return result
    finally:
        if not keep:
            shutil.rmtree(logs)


def main() -> int:
    given = options().parse_args()
    logging.disable()  # the writer's failures are intended here
    if given.seed is None:
        given.seed = Random().randrange(1 << 32)
    try:
        result = run(given)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"stopped; seed {given.seed}", file=sys.stderr)
        return 130
    if given.json:
        print(json.dumps({"seed": given.seed} | result.to_json()))
    else:
        print(*report(given, result), sep="\n")
    return 0 if result.holds else 1


if __name__ == "__main__":
    sys.exit(main())
