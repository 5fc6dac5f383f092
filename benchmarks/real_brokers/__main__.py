"""``make real-brokers``: the contract suite and a nemesis against each real broker.

Starts what this machine can have without Docker, one broker at a time: a NATS cluster of three,
Redis, ElasticMQ as the SQS, RabbitMQ, and Apache Kafka with one and with three nodes. Runs the
contract suite of the sinks against it. Then publishers relay while the broker is harmed, and the
messages that arrived are compared with the written events. Prints a line per broker. Exits with 1
when something failed. A broker of which this machine lacks a part, such as Java, Maven or Debian's
package of a server, is named, and is no failure.
"""

import argparse
import asyncio
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from time import monotonic
from traceback import print_exc

from tests.support.brokers.java_servers import MissingJava
from tests.support.brokers.rabbitmq_server import MissingRabbitMq
from tests.support.brokers.running_broker import VARIABLE
from tests.support.brokers.sqs_server import CREDENTIALS

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

from .broker_trial import Cars, Findings, Trial
from .candidates import CANDIDATES, Candidate
from .redis_place import MissingRedis


def suite(candidate: Candidate, folder: Path) -> str | None:
    """Run the contract suite; what failed, or None."""
    with candidate.suite(folder) as url:
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", *candidate.tests]
        ran = subprocess.run(
            command, env={**os.environ, VARIABLE: url}, check=False, capture_output=True, text=True
        )
    if ran.returncode == 0:
        return None
    print(ran.stdout, ran.stderr, sep="\n", file=sys.stderr)
    return f"contract suite: {ran.stdout.strip().splitlines()[-1].strip('= ')}"


def nemesis(
    candidate: Candidate, folder: Path, seed: int, cars: Cars, function: str | None
) -> Findings:
    """Let publishers relay to the broker while it is harmed, through this map if there is one."""
    with EmbeddedPostgres() as server, candidate.place(folder) as place:
        apply(Database(server.url))
        return asyncio.run(Trial(place, server.url, folder, seed, cars, map=function).run())


def examine(candidate: Candidate, seed: int, cars: Cars, function: str | None) -> bool | None:
    """Print the line of a broker. Returns whether all held, or None if it cannot be started."""
    began, folder = monotonic(), Path(mkdtemp(prefix="real-brokers-"))
    for part in ("suite", "nemesis"):
        (folder / part).mkdir()
    try:
        failed = None if function else suite(candidate, folder / "suite")
        findings = nemesis(candidate, folder / "nemesis", seed, cars, function)
    except (MissingJava, MissingRabbitMq, MissingRedis) as error:
        print(f"missing  {candidate.name:<16} {error}", flush=True)
        shutil.rmtree(folder)
        return None
    except Exception:  # noqa: BLE001 - the next broker shall have its turn
        print_exc()
        print(f"NOT OK   {candidate.name:<16} see the traceback; logs: {folder}", flush=True)
        return False
    holds = failed is None and not findings.broken
    took = f"{monotonic() - began:.0f} s"
    text = f"{failed or ('mapped' if function else 'contract suite passed')}; {findings}; {took}"
    print(f"{'ok' if holds else 'NOT OK':<8} {candidate.name:<16} {text}", flush=True)
    if holds:
        shutil.rmtree(folder)
    else:
        print(f"         logs: {folder}", flush=True)
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(CANDIDATES), help=f"of {', '.join(CANDIDATES)}")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    usual = Cars()
    parser.add_argument("--events", type=int, default=usual.events, help="during each fault")
    parser.add_argument("--subjects", type=int, default=usual.subjects)
    parser.add_argument("--rate", type=float, default=usual.rate, help="events per second")
    own_keys = "benchmarks.real_brokers.own_keys:own_keys"
    parser.add_argument("--map", help=f"of the publishers, as {own_keys}; then without the suite")
    given = parser.parse_args()
    cars = Cars(events=given.events, subjects=given.subjects, rate=given.rate)
    chosen = given.only.split(",")
    if unknown := set(chosen) - CANDIDATES.keys():
        parser.error(f"no broker {', '.join(sorted(unknown))}: use {', '.join(CANDIDATES)}")
    seed = Random().randrange(1 << 32) if given.seed is None else given.seed
    logging.disable()  # the failures are intended here
    os.environ.update(CREDENTIALS)
    print(f"seed {seed}", flush=True)
    results = [examine(CANDIDATES[name], seed, cars, given.map) for name in chosen]
    return 1 if False in results else 0


if __name__ == "__main__":
    sys.exit(main())
