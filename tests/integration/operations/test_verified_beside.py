"""`Verifier` beside everything that changes rows: what is right is never reported."""

from random import Random
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.operations.forgotten_events import forget
from tests.support.publisher.given_up_messages import gathered, relay_all
from tests.support.verified import findings_in

from dsql_outbox.operations import Erasures, Messages, Selection, Targets
from dsql_outbox.operations import fills as fills_module
from dsql_outbox.operations.life import erase as erase_module
from dsql_outbox.operations.life import forget as forget_module
from dsql_outbox.operations.verification import verifier
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.errors import JobRefused, SettingsError
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.postgres_only("on DSQL a target opens after five minutes only"),
]


TURNS = 25


class Life:
    """What changes rows, in an order that a seed chooses, beside a run of `verify`."""

    def __init__(self, database: Database, sql: psycopg.Connection[Any], seed: int) -> None:
        self.database = database
        self.sql = sql
        self.random = Random(seed)
        self.ids: list[UUID] = []
        self.targets = 0

    def event(self) -> Event:
        """A new event of one to three of few entities."""
        names = self.random.sample(
            [f"{kind}/{n}" for kind in ("Car", "Person") for n in range(4)], 3
        )
        pairs = (name.split("/") for name in names[: self.random.randint(1, 3)])
        entities = [Entity(*pair, {"id": pair[1], "name": f"n{len(self.ids)}"}) for pair in pairs]
        self.ids.append(UUID(int=self.random.getrandbits(128)))
        own = {"of": names[0]} if self.random.random() < 0.3 else {}
        return Event.new("Moved", entities, id=self.ids[-1], headers=own)

    async def write(self) -> None:
        events = [self.event() for _ in range(self.random.randint(1, 20))]

        def work() -> None:
            with Writer(self.database) as writer:
                writer.write(events[0])
                writer.write_many(events[1:])

        await to_thread.run_sync(work)

    async def relay(self) -> None:
        refused = self.random.sample(self.ids, min(2, len(self.ids)))
        await relay_all(self.database, MemorySink(), refused=refused)

    async def replay(self) -> None:
        ids = Selection(ids=tuple(self.random.sample(self.ids, min(9, len(self.ids)))))
        async with Messages(self.database) as tool:
            await gathered(tool.replay(ids))

    async def retry(self) -> None:
        async with Messages(self.database) as tool:
            await gathered(tool.retry())

    async def forget(self) -> None:
        await forget(self.database, before=self.some_time())

    async def erase(self) -> None:
        entity = f"{self.random.choice(('Car', 'Person'))}/{self.random.randrange(4)}"
        async with Erasures(self.database) as tool:
            await tool.erase(entity, reason="r")

    async def fill(self) -> None:
        self.targets += 1
        types = ["Car"] if self.targets % 2 else None
        async with Targets(self.database) as tool:
            name = f"t{self.targets}"
            await tool.add(name, types=types, from_start=True)
            if self.targets > 2:
                await tool.drop(f"t{self.targets - 2}")

    def some_time(self) -> Any:
        """A time at which some of the events were saved."""
        ((time,),) = self.sql.execute(
            "SELECT coalesce((SELECT saved_date FROM outbox.business_events ORDER BY random()"
            " LIMIT 1), now())"
        )
        return time

    async def live(self, turns: int) -> None:
        """Do `turns` things one after the other."""
        verbs = [self.write, self.write, self.write]
        verbs += [self.relay, self.relay, self.replay, self.retry, self.forget]
        verbs += [self.erase, self.fill]
        for _ in range(turns):
            try:
                await self.random.choice(verbs)()
            except (JobRefused, SettingsError) as error:  # such as an entity without events
                del error


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of few rows, so that much happens between two of them."""
    for name, rows in (("EVENT", 7), ("TOUCH", 5), ("HEADER", 11), ("OTHER", 3)):
        monkeypatch.setattr(verifier, f"{name}_ROWS", rows)
    monkeypatch.setattr(forget_module, "MAX_ROWS", 40)
    monkeypatch.setattr(erase_module, "_EVENTS", 2)
    monkeypatch.setattr(fills_module, "PAGE_ROWS", 7)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.slow) if n else n for n in range(4)]
)
@pytest.mark.usefixtures("small_pages")
async def test_beside_everything_nothing_is_reported(
    database: Database, outbox_url: str, seed: int
) -> None:
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        lives = [Life(database, sql, 100 + seed), Life(database, sql, seed)]
        await lives[0].write()
        await lives[1].write()
        living = len(lives)
        runs = [await findings_in(database)]

        async def live(life: Life) -> None:
            nonlocal living
            await life.live(TURNS)
            living -= 1

        async with anyio.create_task_group() as group:
            for life in lives:
                group.start_soon(live, life)
            while living:
                runs.append(await findings_in(database))
        runs.append(await findings_in(database))
    assert [found for found in runs if found] == []
    assert len(runs) > 2
