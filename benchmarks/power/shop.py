"""A shop around a broker: a database, a publisher, and a consumer with an inbox of its own."""

from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final
from uuid import UUID

import psycopg
from benchmarks.nemesis.load import digest, events
from benchmarks.nemesis.world import drained
from tests.support.commands import run

from dsql_outbox.inbox import AsyncInbox, Received
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.schema import apply
from dsql_outbox.writer import AsyncWriter

Handle = Callable[[Received], Coroutine[Any, Any, None]]

SUBJECTS: Final = 40
_PATIENCE: Final = 120.0  # seconds until the outbox is empty, at most
_HANDLED: Final = """CREATE TABLE IF NOT EXISTS public.handled
    (n bigserial, event_id uuid, subject text, sequence bigint, is_replay boolean)"""
_INSERT: Final = """INSERT INTO public.handled (event_id, subject, sequence, is_replay)
    VALUES (%s, %s, %s, %s)"""
_BACKWARDS: Final = """SELECT count(*) FROM (SELECT sequence < lag(sequence) OVER
    (PARTITION BY subject, is_replay ORDER BY n) AS back FROM public.handled) AS rows WHERE back"""


class Shop:
    """The outbox in a database, and how its events are written and sent again."""

    def __init__(self, url: str, random: Random) -> None:
        self.url = url
        self.database = Database(url)
        self._random = random
        self.sent: dict[UUID, bytes] = {}
        """The digest of each event that has a receipt."""
        apply(self.database)

    async def write(self, number: int) -> set[UUID]:
        """Write events, and return their ids once each has a receipt."""
        made = dict(events(self._random, number, SUBJECTS))
        async with AsyncWriter(self.database) as writer:
            told = await writer.write_many(made.values())
        assert all(isinstance(each, Receipt) for each in told), "an event was not written"
        self.sent |= {event_id: digest(payload) for event_id, payload in made.items()}
        return {*made}

    async def relayed(self) -> None:
        """Wait until the publisher has got an acknowledgement of every message."""
        await drained(self.url, _PATIENCE)
        assert not one(self.url, "SELECT count(*) FROM outbox.outbox"), "the outbox is not empty"

    def stored(self) -> set[UUID]:
        """The events that the database has."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute("SELECT id FROM outbox.business_events").fetchall()
        return {event_id for (event_id,) in rows}

    def now(self) -> str:
        """The time by the database's clock."""
        return str(one(self.url, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC',"
                                 " 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"))  # fmt: skip

    def replay(self, since: str) -> str:
        """Send the events of a time again, and return what the command says."""
        words = ["messages", "replay", "--since", since, "--reason", "power cut", "--yes"]
        done = run(*words, "--database", self.url)
        assert done.code == 0, done.err
        return (done.out.decode() + done.err).strip().splitlines()[-1]


class Consumer:
    """A service that handles each message once, and notes it in a table of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.orders = Counter[str]()
        """How often each order was told; "again" is a message that was handled before."""
        apply(Database(url), tables="inbox")
        with psycopg.connect(url) as connection:
            connection.execute(_HANDLED)
        self._inbox = AsyncInbox(Database(url), "mailer")

    async def handle(self, message: Received) -> None:
        """Handle a message in one transaction with the inbox."""
        row = (message.id, message.key, message.headers["sequence"], message.replay is not None)

        async def effect(connection: Any) -> None:
            await connection.execute(_INSERT, row)

        self.orders[(await self._inbox.once(message, effect)).order or "again"] += 1

    async def close(self) -> None:
        """Close the connections."""
        await self._inbox.close()

    def orders_since(self, before: Counter[str]) -> str:
        """What it was told beyond `before`, such as ``40 gap, 960 next``."""
        told = sorted((self.orders - before).items())
        return ", ".join(f"{number:,} {order}" for order, number in told)

    def handled(self) -> Counter[UUID]:
        """How often each event was handled."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute("SELECT event_id FROM public.handled").fetchall()
        return Counter(event_id for (event_id,) in rows)

    def handled_twice(self) -> int:
        """How many events were handled more than once."""
        return sum(1 for times in self.handled().values() if times > 1)

    def backwards(self) -> int:
        """How often a subject went back, among its messages or among its replays."""
        return int(one(self.url, _BACKWARDS))


def one(url: str, query: str) -> Any:
    """The one value that a query returns."""
    with psycopg.connect(url) as connection:
        ((found,),) = connection.execute(query.encode()).fetchall()
    return found
