"""Real ``dsql-outbox publish`` processes that are killed, stopped and continued.

What is sent is seen by a plain subscriber of the NATS server, to whom a message
that JetStream knows again is one more message.
"""

import json
import re
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import anyio
import nats
import psycopg
import pytest
from tests.support.commands import Command

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher.sinks import MAX_RUN
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.testing import NatsServer
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

SHARDS = 6
LEASE = 2.0  # the first beat of a publisher has 0.6 s, with its connection
GRACE = 0.2 * LEASE
POLL = 0.3


@dataclass
class Arrived:
    """Everything that was sent to the broker, in order: subject, version, epoch."""

    messages: list[tuple[str, int, int]] = field(default_factory=list)

    async def note(self, message: Any) -> None:
        header = message.headers
        self.messages.append(
            (header["ce-subject"], int(header["ce-sequence"]), int(header["ce-leaseepoch"]))
        )

    def firsts(self) -> dict[str, list[int]]:
        """The versions of each subject, in the order of their first arrivals."""
        found: dict[str, dict[int, None]] = {}
        for subject, version, _ in self.messages:
            found.setdefault(subject, {})[version] = None
        return {subject: list(versions) for subject, versions in found.items()}

    def are_complete(self, per_subject: dict[str, int]) -> bool:
        """Whether each subject has come up to its version, in order."""
        return self.firsts() == {s: list(range(1, n + 1)) for s, n in per_subject.items()}


@dataclass
class World:
    """A database, a broker, and what becomes of both."""

    url: str
    sink: str
    arrived: Arrived
    sql: psycopg.Connection
    written: dict[str, int] = field(default_factory=dict)
    _commands: ExitStack = field(default_factory=ExitStack)

    def publisher(self, *flags: object) -> Command:
        """Start a publisher."""
        words = ["--database", self.url, "--sink", self.sink, "--lease", LEASE, *flags]
        return self._commands.enter_context(Command("publish", *words))

    def write(self, subjects: int, each: int) -> None:
        """Write events; those of one subject after each other."""
        with Writer(Database(self.url)) as writer:
            events = [(n, car) for n in range(each) for car in range(subjects)]
            writer.write_many(
                Event.new("CarMoved", [Entity("Car", f"{car}", {"n": n})]) for n, car in events
            )
        for car in range(subjects):
            self.written[f"Car/{car}"] = self.written.get(f"Car/{car}", 0) + each

    def shares(self) -> list[int]:
        """How many shards each publisher owns, from few to many."""
        return sorted(self.owners().values())

    def owners(self) -> dict[str, int]:
        """How many shards each publisher owns."""
        found = self.sql.execute(
            "SELECT owner, count(*) FROM outbox.outbox_leases"
            " WHERE expires_at > clock_timestamp() GROUP BY owner"
        ).fetchall()
        return dict(found)

    def is_all_there(self) -> bool:
        return self.arrived.are_complete(self.written)


@pytest.fixture
def shards() -> int:
    return SHARDS


@pytest.fixture
async def world(outbox_url: str, nats_server: NatsServer) -> AsyncGenerator[World]:
    arrived = Arrived()
    client: Any = await nats.connect(nats_server.url)
    await client.subscribe("events.>", cb=arrived.note)
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        world = World(outbox_url, f"{nats_server.url}?stream=EVENTS", arrived, sql)
        with world._commands:
            yield world
    await client.close()


async def until(state: Callable[[], bool]) -> float:
    """Wait for a state; returns for how many seconds."""
    began = monotonic()
    with anyio.fail_after(60):
        while not state():  # noqa: ASYNC110 - the state is that of other processes
            await anyio.sleep(0.005)
    return monotonic() - began


def pid_of(command: Command) -> int:
    return command._process.pid


async def test_publishers_share_and_deliver_all_in_order_when_one_is_killed(world: World) -> None:
    doomed, *_others = (world.publisher() for _ in range(3))
    await until(lambda: world.shares() == [2, 2, 2])
    world.write(subjects=40, each=20)
    await until(lambda: len(world.arrived.messages) > 100)
    doomed.signal(signal.SIGKILL)
    doomed.wait()
    gone = f":{pid_of(doomed)}:"
    took = await until(
        lambda: sum(world.owners().values()) == SHARDS and gone not in str(world.owners())
    )
    assert took < LEASE + GRACE + 2 * POLL + 3, "and three seconds for a busy machine"
    await until(world.is_all_there)


async def test_who_was_stopped_past_its_lease_sends_nothing_more_and_comes_back(
    world: World,
) -> None:
    sleeper = world.publisher()
    await until(lambda: world.shares() == [SHARDS])
    world.write(subjects=1, each=600)  # one after the other
    await until(lambda: len(world.arrived.messages) > 20)
    sleeper.signal(signal.SIGSTOP)
    asleep = len(world.arrived.messages)
    assert asleep < 500, "it was in the middle of it"
    world.publisher()
    await until(world.is_all_there)
    there = len(world.arrived.messages)

    sleeper.signal(signal.SIGCONT)
    await until(lambda: world.shares() == [SHARDS // 2, SHARDS // 2])
    world.write(subjects=40, each=2)
    await until(world.is_all_there)

    late = [message for message in world.arrived.messages[there:] if message[2] == 1]
    assert len(late) <= MAX_RUN, "what it had read before it slept, but for the run just leaving"
    duplicates = len(world.arrived.messages) - sum(world.written.values())
    assert duplicates <= TunedSettings.batch_rows, "what was sent and not deleted yet"


async def test_who_is_told_to_end_leaves_its_shards_at_once(world: World) -> None:
    leaving = world.publisher("--lease", 60)
    await until(lambda: world.shares() == [SHARDS])
    leaving.signal(signal.SIGTERM)
    done = leaving.wait()
    assert done.code == 0
    assert world.shares() == []
    world.publisher()
    await until(lambda: world.shares() == [SHARDS])
    epochs = world.sql.execute("SELECT DISTINCT epoch FROM outbox.outbox_leases").fetchall()
    assert epochs == [(2,)]


async def test_status_shows_who_owns_what_and_for_how_long(world: World) -> None:
    owner = world.publisher()
    await until(lambda: world.shares() == [SHARDS])
    with Command("status", "--database", world.url) as status:
        shown = status.finish().out.decode()
    assert f"shards        {SHARDS}, {SHARDS} leased" in shown
    assert re.search(rf"^\S+:{pid_of(owner)}:\w+ +{SHARDS} +yes$", shown, re.MULTILINE), shown
    with Command("status", "--json", "--database", world.url) as status:
        shards = json.loads(status.finish().out)["shards"]
    assert len([each for each in shards if 0 < each["leaseSeconds"] < 2]) == SHARDS
