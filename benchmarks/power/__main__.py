"""``make power``: lose what a broker or a database has acknowledged, and run the cure.

A publisher relays, and a consumer handles each message once. Then the broker's disk loses what was
not synced, or a follower that has less becomes leader, and events are written meanwhile. When the
consumer has read to the end, `messages replay --since` sends those of the lost time again. Or a
standby of the database is promoted that lacks the last commits. Prints what was gone, and what the
consumer saw. Exits with 1 if an event that the database has was not handled once, or if a cut took
nothing that a replay could bring back. What this machine cannot run is named, and is no failure.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from tests.support.brokers.java_servers import MissingJava

from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import EmbeddedPostgres

from .brokers import PoweredBroker, powered_nats
from .disk import MissingDisk
from .kafka import failed_over_kafka, powered_kafka
from .shop import Consumer, Shop
from .standby import ReplicatedPostgres, replicated_postgres

_EVENTS: Final = 1000  # of each part of a run

_BROKERS: Final[dict[str, Callable[[Path], AbstractContextManager[PoweredBroker]]]] = {
    "nats": partial(powered_nats, interval="2m"),  # the default
    "nats-always": partial(powered_nats, interval="always"),
    "kafka": powered_kafka,
    "kafka-failover": failed_over_kafka,
}
_LOSSLESS: Final = "nats-always"
_STANDBY: Final = "standby"


async def cut_and_cured(
    broker: PoweredBroker, shop: Shop, consumer: Consumer, *, loses: bool
) -> bool:
    """Cut the power of a broker, run the cure, and print what was seen. Returns if all holds.

    `loses` tells whether the broker must lose messages for the run to show anything.
    """
    await broker.prepare()
    async with Publisher(shop.database, broker.sink):
        await shop.write(_EVENTS)
        await shop.relayed()
        await broker.consume(consumer.handle)
        broker.sync()
        since = shop.now()
        await shop.write(_EVENTS)
        await shop.relayed()
        await broker.consume(consumer.handle, _EVENTS // 2)
        acknowledged = len(await broker.stored())
        assert acknowledged == len(shop.sent), "messages are missing before the cut"
        broker.cut_power()
        await shop.write(_EVENTS)
        broker.start()
        await shop.relayed()
        there = await broker.stored()
        before = consumer.orders.copy()
        await broker.consume(consumer.handle)
        missing = shop.sent.keys() - consumer.handled().keys()
        said = shop.replay(since)
        await shop.relayed()
        await broker.consume(consumer.handle)
    gone, lost = (len(shop.sent.keys() - held) for held in (there, consumer.handled().keys()))
    twice, seen = consumer.handled_twice(), consumer.orders_since(before)
    print(
        f"     {gone:,} of {_EVENTS:,} messages that were acknowledged after the last sync are gone;"
        f" {said}\n     without the replay {len(missing):,} events are not handled, and the broker has"
        f" {len(missing & there):,} of those, where the consumer does not look again;\n"
        f"     then of {len(shop.sent):,} events {lost:,} were not handled, {twice:,} twice;"
        f" {consumer.backwards():,} went back in their subject; since the cut: {seen}"
    )
    if loses and not missing:
        print("     void: the cut took no message that the consumer had not handled")
        return False
    return not lost and not twice and not consumer.backwards()


async def promoted(
    servers: ReplicatedPostgres, broker: PoweredBroker, shop: Shop, consumer: Consumer
) -> bool:
    """Promote a standby without the last commits, print what was seen, and return if all holds.

    What the database has lost is not wanted back. Its versions are given to other events.
    """
    await broker.prepare()
    async with Publisher(shop.database, broker.sink):
        await shop.write(_EVENTS)
        servers.follow()  # some of these are relayed, and their rows not deleted there
        await shop.write(_EVENTS)
        await shop.relayed()
        await broker.consume(consumer.handle)
        servers.promote()
        before = consumer.orders.copy()
        await shop.write(_EVENTS)
        await shop.relayed()
        await broker.consume(consumer.handle)
    handled, stored = consumer.handled(), shop.stored()
    lost = len(stored - handled.keys())
    twice, seen = consumer.handled_twice(), consumer.orders_since(before)
    print(
        f"     the database has lost {len(shop.sent.keys() - stored):,} of {len(shop.sent):,} events,"
        f" and the consumer has handled {len(handled.keys() - stored):,} of those;\n"
        f"     of the {len(stored):,} others {lost:,} were not handled, {twice:,} twice;"
        f" {consumer.backwards():,} versions came again; since then: {seen}"
    )
    return not lost and not twice


async def _trial(name: str, seed: int) -> bool:
    with (
        TemporaryDirectory(prefix="power-") as folder,
        _BROKERS.get(name, _BROKERS["nats"])(Path(folder)) as broker,
        EmbeddedPostgres() as server,
    ):
        consumer = Consumer(server.create_database("mailer"))
        try:
            if name != _STANDBY:
                shop, loses = Shop(server.url, Random(seed)), name != _LOSSLESS
                return await cut_and_cured(broker, shop, consumer, loses=loses)
            with replicated_postgres() as servers:
                shop = Shop(servers.url, Random(seed))
                return await promoted(servers, broker, shop, consumer)
        finally:
            await consumer.close()


def main() -> int:
    """Run the chosen trials."""
    parser = argparse.ArgumentParser(prog="make power", description=__doc__)
    names = [*_BROKERS, _STANDBY]
    parser.add_argument("--only", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=Random().randrange(1 << 32))
    given = parser.parse_args()
    chosen = given.only.split(",")
    if unknown := {*chosen} - {*names}:
        parser.error(f"no {', '.join(sorted(unknown))}: use {', '.join(names)}")
    logging.disable()  # the failures are intended here
    print(f"seed {given.seed}", flush=True)
    holds = True
    for name in chosen:
        print(name, flush=True)
        try:
            holds &= asyncio.run(_trial(name, given.seed))
        except (MissingDisk, MissingJava) as error:
            print(f"     missing: {error}", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
