"""The relay as a Lambda function, in processes that are killed, frozen and thawed.

Messages go to a real NATS, whose stream has the first arrival of each event.
"""

import signal
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic

import anyio
import psycopg
import pytest
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.brokers.slow_broker import SlowBroker
from tests.support.publisher.running_relays import event
from tests.support.relay_environment import GRACE, LEASE, Environment
from tests.support.waiting import wait_until

from dsql_outbox import Database, Writer
from dsql_outbox.testing import NatsServer

SHARDS = 6
CARS = 20
LONG = 60.0  # seconds; the lease where none shall end
PATIENCE = 30.0  # seconds; a safety net


@dataclass
class World:
    """A database, a broker, and what was written."""

    url: str
    broker: NatsBroker
    sql: psycopg.Connection
    written: Counter[str] = field(default_factory=Counter)
    _environments: ExitStack = field(default_factory=ExitStack)

    def environment(self, sink: str | None = None, **settings: float) -> Environment:
        """Start an environment."""
        made = Environment(self.url, sink or self.broker.url, **settings)
        return self._environments.enter_context(made)

    def write(self, each: int) -> None:
        """Write events; those of one car after each other."""
        with Writer(Database(self.url)) as writer:
            writer.write_many(event(f"{car}", n) for n in range(each) for car in range(CARS))
        self.written.update({f"Car/{car}": each for car in range(CARS)})

    def waiting(self) -> int:
        return self._count("SELECT count(*) FROM outbox.outbox")

    def leases(self) -> int:
        return self._count("SELECT count(owner) FROM outbox.outbox_leases")

    def live_leases(self) -> int:
        return self._count(
            "SELECT count(*) FROM outbox.outbox_leases WHERE expires_at"
            f" > clock_timestamp() - {GRACE} * interval '1 s'"
        )

    def _count(self, query: str) -> int:
        ((found,),) = self.sql.execute(query.encode()).fetchall()
        return int(found)

    def arrived(self) -> dict[str, list[int]]:
        """The versions of each car, in the order of their first arrivals."""
        found: dict[str, list[int]] = {}
        for message in anyio.run(self.broker.stored):
            version = int(message.headers["sequence"])
            found.setdefault(message.headers["subject"], []).append(version)
        return found

    def check(self) -> None:
        """All that was written has arrived, in order, and nothing is left behind."""
        assert self.arrived() == {car: list(range(1, n + 1)) for car, n in self.written.items()}
        assert self.waiting() == self.leases() == 0


@pytest.fixture
def shards() -> int:
    return SHARDS


@pytest.fixture
def world(outbox_url: str, nats_server: NatsServer) -> Generator[World]:
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        world = World(outbox_url, NatsBroker(nats_server), sql)
        with world._environments:
            yield world


@pytest.fixture
def broker(nats_server: NatsServer) -> Generator[SlowBroker]:
    """A way to the broker on which messages can be stopped."""
    with SlowBroker(nats_server) as broker:
        yield broker


def slow(broker: SlowBroker) -> str:
    return f"{broker.url}?stream=EVENTS&timeout=30"


def test_several_at_once_relay_all_in_order_while_events_are_written(world: World) -> None:
    environments = [world.environment(lease=LONG) for _ in range(4)]
    world.write(each=8)
    answers = []
    for _ in range(3):
        for environment in environments:
            environment.begin()
        world.write(each=4)
        answers += [environment.answer() for environment in environments]
    answers.append(environments[0].invoke())
    assert sum(answer["delivered"] for answer in answers) == world.written.total()
    assert {answer["threads"] for answer in answers} == {1}
    assert answers[-1]["ended"] == "empty"
    world.check()


def test_what_a_killed_one_left_is_relayed_when_its_leases_are_over(
    world: World, broker: SlowBroker
) -> None:
    doomed, heir = world.environment(slow(broker)), world.environment()
    world.write(each=20)
    with broker.held():
        doomed.begin()
        broker.arrived()
        doomed.signal(signal.SIGKILL)
        doomed.wait()
    assert world.leases() == SHARDS, "it was in the middle of it"
    assert world.waiting() == world.written.total()
    wait_until(lambda: world.live_leases() == 0, PATIENCE)
    assert heir.invoke()["ended"] == "empty"
    world.check()


def test_while_the_leases_of_a_killed_one_last_nobody_sends_its_messages(
    world: World, broker: SlowBroker
) -> None:
    doomed, heir = world.environment(slow(broker), lease=LONG), world.environment()
    world.write(each=1)
    with broker.held():
        doomed.begin()
        broker.arrived()
        doomed.signal(signal.SIGKILL)
    locked_out = heir.invoke()
    assert (locked_out["ended"], locked_out["shards"]) == ("no shard", 0)
    assert (locked_out["delivered"], locked_out["left"]) == (0, CARS)


def test_one_that_was_frozen_past_every_lease_relays_again(world: World) -> None:
    sleeper, other = world.environment(), world.environment()
    world.write(each=5)
    assert sleeper.invoke()["ended"] == "empty"
    sleeper.signal(signal.SIGSTOP)
    assert world.leases() == 0, "it gave them back before the freeze"
    world.write(each=5)
    assert other.invoke()["delivered"] == 5 * CARS
    thaw_at = monotonic() + LEASE + GRACE
    wait_until(lambda: monotonic() > thaw_at)
    world.write(each=5)
    sleeper.signal(signal.SIGCONT)
    assert sleeper.invoke()["delivered"] == 5 * CARS
    world.check()


def test_one_that_stood_still_in_the_middle_sends_nothing_late_and_loses_nothing(
    world: World, broker: SlowBroker
) -> None:
    """Lambda does not freeze an invocation that runs; a virtual machine may still stand still."""
    sleeper, other = world.environment(slow(broker)), world.environment()
    world.write(each=5)
    with broker.held():
        sleeper.begin()
        broker.arrived()
        sleeper.signal(signal.SIGSTOP)
    wait_until(lambda: world.live_leases() == 0, PATIENCE)
    world.write(each=5)
    assert other.invoke()["ended"] == "empty"
    sleeper.signal(signal.SIGCONT)
    assert sleeper.answer()["left"] == 0
    world.check()


def test_with_a_slow_broker_its_time_ends_before_lambdas_and_the_next_goes_on(
    world: World, broker: SlowBroker
) -> None:
    environment = world.environment(slow(broker), margin=2.0)
    world.write(each=20)
    with broker.held():
        environment.begin(5.0)
        began = monotonic()
        broker.arrived()
        held = environment.answer()
        assert monotonic() - began < 5.0
        assert (held["ended"], held["delivered"]) == ("time", 0)
        assert (world.waiting(), world.leases()) == (world.written.total(), 0)
    done = environment.invoke()
    assert (done["ended"], done["delivered"]) == ("empty", world.written.total())
    world.check()


@pytest.mark.slow
def test_many_short_invocations_relay_a_long_backlog_in_order(world: World) -> None:
    environments = [world.environment(lease=LONG) for _ in range(2)]
    world.write(each=300)
    answers = []
    while world.waiting():
        for environment in environments:
            environment.begin(1.3)  # of which it keeps a second free
        answers += [environment.answer() for environment in environments]
    assert sum(answer["ended"] == "time" for answer in answers) > 0
    assert sum(answer["delivered"] for answer in answers) == world.written.total()
    world.check()
