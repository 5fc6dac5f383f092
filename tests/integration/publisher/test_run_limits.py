"""When `Publisher.run` ends by itself: its own shards are empty, or its time is up."""

from collections.abc import Sequence

import anyio
import psycopg
import pytest
from tests.support.publisher.running_relays import count, event, in_order, quick_settings

from dsql_outbox.operations import StatusReader
from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Delivered, Publisher, Retry
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]


class Busy(MemorySink):
    """A sink that never answers, and says when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = anyio.Event()

    async def publish(self, _messages: Sequence[Message], _answer: Answer, /) -> None:
        self.called.set()
        await anyio.sleep_forever()


class Slow(MemorySink):
    """A sink that takes one message at a time, each for 10 ms until it is mended."""

    pause = 0.01

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index, message in enumerate(messages):
            await anyio.sleep(self.pause)
            self._messages.append(message)
            answer(index, Delivered())


async def test_the_shards_of_another_do_not_keep_a_run_that_ends_with_its_own(
    database: Database, writer: Writer
) -> None:
    sink = Busy()
    writer.write(event("car"))
    async with Publisher(database, sink, quick_settings(lease=60.0, drain=0.1)):
        await sink.called.wait()
        with anyio.fail_after(5):
            done = await Publisher(database, MemorySink(), quick_settings()).run(until_empty="own")
    assert (done.read, done.delivered) == (0, 0)


async def test_a_run_that_ends_with_its_own_shards_empties_them(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event(f"car-{n % 10}", n) for n in range(100)])
    done = await Publisher(database, MemorySink(), quick_settings()).run(until_empty="own")
    assert (done.delivered, count(sql, "outbox")) == (100, 0)


async def test_a_message_of_its_own_that_failed_keeps_it_for_max_wait(
    database: Database, writer: Writer
) -> None:
    failing = event("car")
    writer.write(failing)
    sink = MemorySink()
    sink.fail(failing.id, Retry("no"))
    patient = Publisher(database, sink, quick_settings(backoff_base=0.05))
    assert (await patient.run(until_empty="own", max_wait=5)).delivered == 1


async def test_when_its_time_is_up_what_was_sent_is_settled_and_the_leases_are_free(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write_many([event("car", n) for n in range(500)])
    sink = Slow()
    done = await Publisher(database, sink, quick_settings()).run(until_empty=True, max_seconds=2.0)
    assert 0 < done.delivered < 500
    assert done.deleted == done.delivered == len(sink.messages) == 500 - count(sql, "outbox")
    assert in_order(sink.messages)
    assert sql.execute("SELECT count(owner) FROM outbox.outbox_leases").fetchone() == (0,)
    sink.pause = 0.0
    await Publisher(database, sink, quick_settings()).run(until_empty=True)
    assert in_order(sink.messages)
    assert len(sink.messages) == 500


async def test_what_the_broker_does_not_answer_is_cut_off_after_the_drain(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write(event("car"))
    with anyio.fail_after(5):
        done = await Publisher(database, Busy(), quick_settings(drain=0.1)).run(max_seconds=0.3)
    assert (done.delivered, count(sql, "outbox")) == (0, 1)


async def test_without_any_time_it_sends_nothing(database: Database, writer: Writer) -> None:
    writer.write(event("car"))
    sink = MemorySink()
    await Publisher(database, sink).run(max_seconds=0)
    assert sink.messages == []


async def test_the_waiting_messages_are_counted_up_to_a_limit(
    database: Database, writer: Writer
) -> None:
    async with StatusReader(database) as reader:
        assert (await reader.read_waiting()).count == 0
        writer.write_many([event(f"car-{n}") for n in range(1001)])
        found = await reader.read_waiting()
    assert (found.count, found.more) == (1000, True)
