"""Rows in every state that this version may leave in a database.

A subject is named after the state of its messages.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, LiteralString
from uuid import UUID

import psycopg
from tests.support.operations.forgotten_events import forget
from tests.support.operations.small_jobs import small_pages
from tests.support.publisher.given_up_messages import gathered
from tests.support.publisher.running_relays import relayed, until

from dsql_outbox.inbox import AsyncInbox, Received
from dsql_outbox.inbox.received import received_message
from dsql_outbox.operations import Erasures, Messages, Selection, Targets, Topics
from dsql_outbox.outbox import Database, Entity, Event, Message
from dsql_outbox.publisher import Publisher, Rejected, Retry
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

SECRET: Final = "Zaphod"
SHARDS: Final = 16
PAUSED_TOPIC: Final = "events.LoanPaid"


def car(state: str, n: int, id: UUID | None = None) -> Event:  # noqa: A002 - as `Event.new` has it
    """An event of the car with this state."""
    return Event.new("CarMoved", [Entity("Car", state, {"n": n})], id=id, headers={"tenant": "7"})


def loan(n: int, kind: str = "LoanPaid") -> Event:
    """An event of the loan, with the paused topic or another one."""
    return Event.new(kind, [Entity("Loan", "paused", {"n": n}), Entity("Car", "touched", {"n": n})])


def person(name: str, n: int) -> Event:
    """An event of a person that is erased."""
    return Event.new("PersonMoved", [Entity("Person", name, {"name": SECRET, "n": n})])


def received(message: Message) -> Received:
    """The message as a consumer gets it."""
    return received_message(
        message.headers, dedupe_id=message.dedupe_id, topic=message.topic, data=message.payload
    )


_OWNED: LiteralString = "SELECT count(owner) FROM outbox.outbox_leases WHERE shard < 1024"


class _Given:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.sink = MemorySink()
        self._ids: dict[tuple[str, int], UUID] = {}

    def write(self, *events: Event) -> None:
        with Writer(self.database) as writer:
            writer.write_many(events)

    def cars(self, state: str, first: int, last: int) -> list[UUID]:
        """Write the versions of a car, and return the ids of the events."""
        events = [car(state, n) for n in range(first, last + 1)]
        self.write(*events)
        return [each.id for each in events]

    async def relay(self, **settings: object) -> None:
        await relayed(self.database, self.sink, **settings)


@asynccontextmanager
async def left_rows(url: str) -> AsyncGenerator[None]:
    """Leave the rows. In the block a publisher runs, and its broker is out of reach."""
    given = _Given(Database(url))
    await _old_events(given)
    await _targets(given)
    await _erased(given)
    replaying = await _sent(given)
    retried = await _failed(given)
    await _waiting(given, replaying, retried)
    given.sink.down = True
    with psycopg.connect(url, autocommit=True) as sql:
        async with Publisher(given.database, given.sink):
            await until(lambda: sql.execute(_OWNED).fetchall() == [(SHARDS,)])
            yield


async def _old_events(given: _Given) -> None:
    given.cars("forgotten", 1, 1)
    await given.relay()
    await forget(given.database)
    given.write(person("erased", 1))
    await given.relay()


async def _targets(given: _Given) -> None:
    """One that its publisher has relayed for a while, until it was paused, and a dropped one."""
    async with Targets(given.database) as targets:
        await targets.add("lake")
        await targets.add("gone", types=["Loan"])
        await targets.drop("gone")
    given.cars("waiting", 1, 1)
    await Publisher(given.database, given.sink, target="lake").run(until_empty=True)
    async with Topics(given.database, target="lake") as topics:
        await topics.pause("events.CarMoved", "the lake is full")


async def _erased(given: _Given) -> None:
    """One person wholly, and one whose erasure has only begun."""
    given.write(person("erased", 2), *(person("half", n) for n in range(1, 6)))
    await given.relay()
    async with Erasures(given.database) as tool:
        await tool.erase("Person/erased", reason="ticket 7")
        with small_pages():
            run = tool.erase("Person/half", reason="ticket 8")
            async for done in run:
                if done.events:
                    run.stop()
    await given.relay()


async def _sent(given: _Given) -> UUID:
    """Sent messages: of replays, and two that a consumer has handled. Returns one to replay."""
    handled = given.cars("replayed", 1, 2)
    replaying, _ = given.cars("replaying", 1, 2)
    given.write(loan(1, "LoanNoted"))
    await given.relay()
    messages = {each.event_id: each for each in given.sink.messages}
    async with AsyncInbox(given.database, "mailer") as inbox:
        for event_id in handled:
            await inbox.once(received(messages[event_id]), _nothing)
    async with Messages(given.database) as tool:
        await gathered(tool.replay(Selection(ids=(handled[0],)), reason="ticket 9"))
    await given.relay()
    return replaying


async def _nothing(_connection: object) -> None:
    """The effect of a message."""


async def _failed(given: _Given) -> UUID:
    """Each of these subjects has a message that failed, and a later one. Returns one to retry."""
    sink = given.sink
    _, blocked, _ = given.cars("blocked", 1, 3)
    sink.fail(blocked, Rejected("not for me"))
    await given.relay(on_dead_letter="block")
    _, dead, _ = given.cars("dead", 1, 3)
    _, retried = given.cars("retried", 1, 2)
    for event_id in (dead, retried):
        sink.fail(event_id, Rejected("not for me"))
    await given.relay()
    _, failing, _ = given.cars("failing", 1, 3)
    sink.fail(failing, Retry("not now"))
    await given.relay()
    return retried


async def _waiting(given: _Given, replaying: UUID, retried: UUID) -> None:
    """What nobody has tried to send yet, and a read model whose fill has only begun."""
    async with Messages(given.database) as tool:
        await gathered(tool.retry(Selection(state="dead", ids=(retried,)), reason="ticket 10"))
        await gathered(tool.replay(Selection(ids=(replaying,)), reason="ticket 11"))
    async with Topics(given.database) as topics:
        await topics.pause(PAUSED_TOPIC, "the ledger is closed")
    given.write(loan(2), loan(3, "LoanNoted"))
    async with Targets(given.database) as targets:
        with small_pages():
            run = targets.add("moves", kind="model", from_start=True)
            async for each in run:
                if each.fill is not None and each.fill.read:
                    run.stop()
    given.cars("waiting", 2, 3)
    given.cars("new", 1, 1)
