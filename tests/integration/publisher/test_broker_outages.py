"""A broker that fails, wholly or in part: no attempt is burnt, and nothing is asked in a hurry."""

from collections.abc import Sequence
from uuid import UUID

import anyio
import anyio.lowlevel
import psycopg
import pytest
from tests.support.publisher.running_relays import event, quick_settings, running, until

from dsql_outbox.observability import Fact, RoundEnded, WriteEnded
from dsql_outbox.outbox import Database, Message, SinkUnavailable
from dsql_outbox.publisher import (
    Answer,
    NotAttempted,
    Publisher,
    Retry,
)
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

SHARDS = 4


class FlakySink(MemorySink):
    """Cannot be reached while `down`; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.down = True
        self.asked: list[int] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        self.asked.append(len(messages))
        if self.down:
            raise SinkUnavailable("nobody listens")
        await super().publish(messages, answer)


async def test_an_outage_of_the_broker_burns_no_attempt_and_ends_with_one_probe(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"car-{n}", n) for n in range(30)])
    sink = FlakySink()
    rounds: list[RoundEnded] = []
    quick = quick_settings(breaker_failures=3, breaker_open=0.5, attempts=2)

    def watch(fact: Fact, /) -> None:
        if isinstance(fact, RoundEnded):
            rounds.append(fact)

    publisher = Publisher(database, sink, quick, hooks=[watch])
    async with running(publisher):
        await until(lambda: len(sink.asked) >= 4)
        publisher.doorbell(WriteEnded(UUID(int=1), "committed", 1, 0))
        await until(lambda: any(not r.sink_available and r.statements == 0 for r in rounds))
        await until(lambda: len(sink.asked) >= 6)
        assert sql.execute("SELECT count(*) FROM outbox.outbox_failures").fetchone() == (0,)
        sink.down = False
        await until(lambda: len(sink.messages) == 30)
    assert sink.asked[:3] == [30] * 3, "closed: all are tried"
    assert set(sink.asked[3:6]) == {1}, "half open: one is a probe"
    assert sql.execute("SELECT count(*) FROM outbox.dead_letters").fetchone() == (0,)
    assert [m.attempt for m in sink.messages] == [1] * 30


async def test_what_a_part_of_a_broker_leaves_unsent_is_not_asked_for_without_a_pause(
    database: Database, writer: Writer
) -> None:
    class Half(MemorySink):
        asked = 0

        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            self.asked += 1
            for index in range(len(messages)):
                answer(index, NotAttempted())

    writer.write(event("car"))
    sink = Half()
    async with running(Publisher(database, sink, quick_settings(idle_min=0.05, idle_max=10.0))):
        await until(lambda: sink.asked >= 3)
        await anyio.lowlevel.checkpoint()
        assert sink.asked <= 4


async def test_a_failure_goes_on_with_the_new_owner(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    bad = event("car")
    writer.write(bad)
    sink = MemorySink()
    sink.fail(bad.id, Retry("no"), Retry("no"))
    for _ in range(2):
        async with Publisher(database, sink, quick_settings(backoff_base=0.001)) as publisher:
            while not (await publisher.run_once()).failed:
                pass
        found = sql.execute("SELECT event_id, attempts FROM outbox.outbox_failures").fetchall()
    assert found == [(bad.id, 2)]
