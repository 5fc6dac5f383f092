"""A function in the transaction that deletes the row: a read model without a checkpoint."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import psycopg
import pytest
from tests.support.publisher.running_relays import count, event

from dsql_outbox.outbox import AsyncConnection, Database, Message
from dsql_outbox.publisher import Answer, Publisher, PublisherSettings
from dsql_outbox.testing import MemorySink, PostgresProxy
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

QUICK = PublisherSettings(backoff_base=0.01, backoff_cap=0.01)


@pytest.fixture(autouse=True)
def moves(sql: psycopg.Connection) -> None:
    """A read model: how often each car moved, and the last version of it."""
    sql.execute("CREATE TABLE moves (car text PRIMARY KEY, number int NOT NULL, last int NOT NULL)")


async def count_move(connection: AsyncConnection, message: Message) -> None:
    version = int(message.headers["sequence"])
    await connection.execute(
        "INSERT INTO public.moves AS m VALUES (%s, 1, %s) ON CONFLICT (car)"
        " DO UPDATE SET number = m.number + 1,"
        " last = CASE WHEN m.last = excluded.last - 1 THEN excluded.last ELSE -1 END",
        (message.key, version),
    )


def model(sql: psycopg.Connection) -> dict[str, tuple[int, int]]:
    return {car: (number, last) for car, number, last in sql.execute("SELECT * FROM moves")}


async def test_every_event_is_applied_once_and_in_order_beside_a_broker(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(60):
        writer.write(event(f"car-{n % 4}", n))
    sink = MemorySink()
    done = await Publisher(database, sink, apply=count_move).run(until_empty=True)
    assert (done.delivered, done.deleted, len(sink.ids)) == (60, 60, 60)
    assert model(sql) == {f"Car/car-{n}": (15, 15) for n in range(4)}
    assert count(sql, "outbox") == 0


async def test_no_broker_is_needed(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write(event("a"))
    await Publisher(database, apply=count_move).run(until_empty=True)
    assert model(sql) == {"Car/a": (1, 1)}


async def test_an_error_of_the_function_fails_its_message_and_no_other(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(12):
        writer.write(event(f"car-{n % 3}", n))
    raised: Counter[str] = Counter()

    async def sometimes(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        if message.key == "Car/car-1" and raised[message.dedupe_id] < 2:
            raised[message.dedupe_id] += 1
            raise KeyError(message.key)

    done = await Publisher(database, settings=QUICK, apply=sometimes).run(until_empty=True)
    assert (done.delivered, done.dead) == (12, 0)
    assert model(sql) == {f"Car/car-{n}": (4, 4) for n in range(3)}
    assert count(sql, "outbox_failures") == 0


async def test_an_error_of_the_database_in_the_function_is_told_without_its_text(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write(event("a"))

    async def wrong(connection: AsyncConnection, _message: Message) -> None:
        await connection.execute("SELECT 'secret'::int")

    settings = PublisherSettings(attempts=1)
    done = await Publisher(database, settings=settings, apply=wrong).run(until_empty=True)
    assert done.dead == 1
    ((error,),) = sql.execute("SELECT error FROM outbox.dead_letters").fetchall()
    assert "InvalidTextRepresentation (22P02)" in error
    assert "secret" not in error


async def test_what_another_publisher_settled_changes_nothing(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    """The number of deleted rows is the fence; here it is the function that takes the row away."""
    writer.write(event("a"))

    class Thief(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            sql.execute("DELETE FROM outbox.outbox")
            await super().publish(messages, answer)

    await Publisher(database, Thief(), apply=count_move).run(until_empty=True)
    assert model(sql) == {}


@pytest.mark.parametrize("where", ["before", "after_sent", "after_commit"])
@pytest.mark.parametrize(
    "at", ["COMMIT", "INSERT INTO public.moves", 'DELETE FROM "outbox".outbox o']
)
async def test_a_connection_that_is_lost_in_the_transaction_applies_nothing_twice(
    database_url: str,
    writer: Writer,
    sql: psycopg.Connection,
    at: str,
    where: Literal["before", "after_sent", "after_commit"],
) -> None:
    """Also when COMMIT took effect and its answer was lost: the row is gone, then."""
    for n in range(6):
        writer.write(event(f"car-{n % 2}", n))
    with PostgresProxy(database_url) as proxy:
        proxy.cut(where, 2, matching=at)
        settings = PublisherSettings(idle_max=0.05)
        publisher = Publisher(Database(proxy.url), settings=settings, apply=count_move)
        await publisher.run(until_empty=True)
    assert model(sql) == {"Car/car-0": (3, 3), "Car/car-1": (3, 3)}


async def test_several_publishers_apply_each_event_once(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(100):
        writer.write(event(f"car-{n % 10}", n))
    async with Publisher(database, apply=count_move), Publisher(database, apply=count_move) as one:
        assert one
        await Publisher(database, apply=count_move).run(until_empty=True)
    assert model(sql) == {f"Car/car-{n}": (10, 10) for n in range(10)}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "a sink, or a function to apply"),
        ({"apply": print}, "async def apply"),
        ({"sink": "nats://localhost"}, r"async with open_sink\(url\) as sink"),
        ({"sink": 7}, r"async with open_sink\(url\) as sink"),
    ],
)
async def test_wrong_arguments_are_refused_with_the_right_expression(
    database: Database, arguments: dict[str, object], text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        Publisher(database, **arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Publisher\(Database\(url\), \.\.\)"):
        Publisher("postgresql://h/d", MemorySink())  # type: ignore[arg-type]
