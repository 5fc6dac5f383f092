"""A function in the transaction that deletes the row: a read model without a checkpoint."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import anyio
import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.applying_process import count_move
from tests.support.publisher.running_relays import count, event, only_model, running, until

from dsql_outbox.outbox import Database, Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.exchange import command
from dsql_outbox.publisher import Answer, Apply, Publisher
from dsql_outbox.publisher import publisher as publisher_module
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema import session
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


CANCELS = pytest.mark.postgres_only("the endpoint passes no cancel on, so a sleep keeps its locks")

SLEEP = b"SELECT pg_sleep(600)"


@pytest.fixture(autouse=True)
def moves(database: Database, sql: psycopg.Connection) -> None:
    """A read model: how often each car moved, and the last version of it."""
    anyio.run(only_model, database, "moves")
    sql.execute("CREATE TABLE moves (car text PRIMARY KEY, number int NOT NULL, last int NOT NULL)")


def applying(database: Database, function: Apply = count_move, **settings: float) -> Publisher:
    """A publisher of the read model, which tries again soon."""
    quick = {"backoff_base": 0.01, "backoff_cap": 0.01, "idle_max": 0.02} | settings
    given = TunedSettings(**quick)  # type: ignore[arg-type]
    return Publisher(database, settings=given, apply=function, target="moves")


def model(sql: psycopg.Connection) -> dict[str, tuple[int, int]]:
    return {car: (number, last) for car, number, last in sql.execute("SELECT * FROM moves")}


async def test_every_event_is_applied_once_and_in_order(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(60):
        writer.write(event(f"car-{n % 4}", n))
    done = await applying(database).run(until_empty=True)
    assert (done.delivered, done.deleted) == (60, 60)
    assert model(sql) == {f"Car/car-{n}": (15, 15) for n in range(4)}
    assert count(sql, "outbox") == 0


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

    done = await applying(database, sometimes).run(until_empty=True)
    assert (done.delivered, done.dead) == (12, 0)
    assert model(sql) == {f"Car/car-{n}": (4, 4) for n in range(3)}
    assert count(sql, "outbox_failures") == 0


@pytest.mark.parametrize(
    ("sick", "conflicts", "most"), [(0, False, 3), (17, False, 3), (29, False, 3), (17, True, 13)]
)
async def test_a_message_that_fails_its_batch_is_applied_alone_and_the_others_go_on(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    sick: int,
    conflicts: bool,
    most: int,
) -> None:
    """The others wait for it twice, and not for each half again; a conflict is tried six times."""
    given(writer, 30)
    calls: Counter[str] = Counter()
    order: list[str] = []

    async def apply(connection: AsyncConnection, message: Message) -> None:
        calls[message.key] += 1
        order.append(message.key)
        if order.index(message.key) == sick:
            if conflicts:
                await connection.execute(RAISE.format("40001").encode())
            raise ValueError
        await count_move(connection, message)

    done = await applying(database, apply, attempts=1, batch_rows=500).run(until_empty=True)
    assert (done.delivered, done.dead, len(model(sql))) == (29, 1, 29)
    assert max(calls.values()) <= most


@CANCELS
async def test_a_message_that_fails_beside_its_own_statement_stops_no_other(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    """A task of the function is in the session as it raises, and is woken."""
    given(writer)
    tasks: list[asyncio.Task[object]] = []

    async def apply(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        if message.key == "Car/car-7":
            tasks.append(asyncio.create_task(connection.wait(command(connection, SLEEP))))
            await until(lambda: connection.info.transaction_status is TransactionStatus.ACTIVE)
            raise LookupError

    with anyio.fail_after(60):
        done = await applying(database, apply, attempts=1).run(until_empty=True)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert (done.delivered, done.dead) == (11, 1)
    assert model(sql).keys() == {f"Car/car-{n}" for n in range(12) if n != 7}
    assert {type(end) for end in ends} == {psycopg.OperationalError}


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_message_that_fails_in_a_pipeline_stops_no_other(
    database: Database, writer: Writer, sql: psycopg.Connection, attempts: int
) -> None:
    """A sibling task is in a pipeline of the session as the function raises."""
    for n in range(39):
        writer.write(event(f"car-{n % 13}", n))
    is_over = anyio.Event()

    async def apply(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        if message.key != "Car/car-7":
            return
        is_open = anyio.Event()

        async def part() -> None:
            async with connection.pipeline():
                await (await connection.execute("SELECT 1")).fetchone()
                is_open.set()
                await is_over.wait()

        async def fails() -> None:
            await is_open.wait()
            raise LookupError

        await asyncio.gather(part(), fails())

    try:
        with anyio.fail_after(60):
            done = await applying(database, apply, attempts=attempts).run(until_empty=True)
    finally:
        is_over.set()
        await anyio.wait_all_tasks_blocked()
    assert (done.delivered, done.dead) == (36, 3)
    assert model(sql) == {f"Car/car-{n}": (3, 3) for n in range(13) if n != 7}


async def test_an_error_of_the_database_in_the_function_is_told_without_its_text(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    writer.write(event("a"))

    async def wrong(connection: AsyncConnection, _message: Message) -> None:
        await connection.execute("SELECT 'secret'::int")

    done = await applying(database, wrong, attempts=1).run(until_empty=True)
    assert done.dead == 1
    ((error,),) = sql.execute("SELECT error FROM outbox.dead_letters").fetchall()
    assert "InvalidTextRepresentation (22P02)" in error
    assert "secret" not in error


async def test_what_another_publisher_settled_changes_nothing(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of deleted rows is the fence. The row is gone before its message is applied."""
    writer.write(event("a"))

    class Thief(MemorySink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            sql.execute("DELETE FROM outbox.outbox")
            await super().publish(messages, answer)

    monkeypatch.setattr(publisher_module, "Nowhere", Thief)
    await applying(database).run(until_empty=True)
    assert model(sql) == {}


@pytest.mark.client
@pytest.mark.parametrize(
    ("at", "where"),
    [
        pytest.param(at, where, marks=[pytest.mark.slow] * (not at.startswith(quick)))
        for where, quick in (
            ("before", ("INSERT",)),
            ("after_sent", ("COMMIT", "DELETE")),
            ("after_commit", ("COMMIT",)),
        )
        for at in ("COMMIT", "INSERT INTO public.moves", 'DELETE FROM "outbox".outbox o')
    ],
)
async def test_a_connection_that_is_lost_in_the_transaction_applies_nothing_twice(
    outbox_url: str,
    writer: Writer,
    sql: psycopg.Connection,
    at: str,
    where: Literal["before", "after_sent", "after_commit"],
) -> None:
    """Also when COMMIT took effect and its answer was lost: the row is gone, then."""
    for n in range(6):
        writer.write(event(f"car-{n % 2}", n))
    with PostgresProxy(outbox_url) as proxy:
        proxy.cut(where, 2, matching=at)
        await applying(Database(proxy.url)).run(until_empty=True)
    assert model(sql) == {"Car/car-0": (3, 3), "Car/car-1": (3, 3)}


async def test_several_publishers_apply_each_event_once(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    for n in range(100):
        writer.write(event(f"car-{n % 10}", n))
    async with applying(database), applying(database):
        await applying(database).run(until_empty=True)
    assert model(sql) == {f"Car/car-{n}": (10, 10) for n in range(10)}


def given(writer: Writer, cars: int = 12) -> None:
    """Write one event per car."""
    for n in range(cars):
        writer.write(event(f"car-{n}", n))


async def ended(database: Database, function: Apply, **settings: float) -> str:
    """Apply until nothing is left, with one attempt. Returns the reason of the dead letter."""
    with anyio.fail_after(60):
        await applying(database, function, attempts=1, **settings).run(until_empty=True)
    async with await database.connect_async() as connection:
        found = await (await connection.execute("SELECT error FROM outbox.dead_letters")).fetchall()
    return found[0][0] if found else ""


RAISE = "DO $$ BEGIN RAISE EXCEPTION 'secret' USING errcode = '{}'; END $$"


SLOW = "SELECT pg_sleep(60)"


async def await_a_cancelled_task() -> None:
    """As a client of HTTP does whose pool was closed."""
    inner = asyncio.create_task(asyncio.sleep(60))
    inner.cancel()
    await inner


@pytest.mark.client
@pytest.mark.parametrize(
    "code",
    [
        "57014",
        *(pytest.param(code, marks=pytest.mark.slow) for code in ("55P03", "40P01", "53200")),
        "XX000",
        "deferred",
        "theirs",
        "cancelled",
        pytest.param("timeout", marks=CANCELS),
    ],
)
async def test_one_bad_message_stops_no_other(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
    code: str,
) -> None:
    given(writer)
    sql.execute("CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def one_fails(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        if message.key != "Car/car-3":
            return
        if code == "theirs":
            raise psycopg.OperationalError
        if code == "cancelled":
            await await_a_cancelled_task()
        if code == "timeout":
            await asyncio.wait_for(connection.execute(SLOW), 0.05)
        query = RAISE.format(code)
        if code == "deferred":
            query = "INSERT INTO public.once VALUES (1), (1)"
        await connection.execute(query.encode())

    reason = await ended(database, one_fails)
    assert "the function to apply raised" in reason
    assert "secret" not in reason
    assert model(sql).keys() == {f"Car/car-{n}" for n in range(12) if n != 3}
    assert "waits for the database" not in caplog.text  # the function's error is no outage


@pytest.mark.client
@CANCELS
async def test_each_message_has_its_own_time(
    database: Database, writer: Writer, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together the calls take longer than one may."""
    monkeypatch.setattr(session, "CALL_TIMEOUT", 1.0)
    given(writer)

    async def slow(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        late = message.key == "Car/car-3"
        await connection.execute("SELECT pg_sleep(%s)", (60 if late else 0.12,))

    reason = await ended(database, slow)
    assert "CallTimedOut: the function to apply ran for more than 1 s" in reason
    assert model(sql).keys() == {f"Car/car-{n}" for n in range(12) if n != 3}


async def test_the_first_failure_is_logged_with_its_traceback_and_without_its_text(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    given(writer, 4)

    async def fail_with_payload(_connection: AsyncConnection, message: Message) -> None:
        raise KeyError(message.payload, "secret")

    await ended(database, fail_with_payload)
    (line,) = [each for each in caplog.records if "function to apply" in each.getMessage()]
    text = logging.Formatter().format(line)
    assert "in fail_with_payload" in text
    assert "KeyError" in text
    assert "Car Created" not in text


def refuse(depth: int, payload: bytes) -> None:
    """Call itself, and raise an error that quotes an event."""
    if depth:
        refuse(depth - 1, payload)
    raise KeyError(payload, "secret")


@pytest.mark.parametrize("depth", [0, 4, 40])
async def test_the_reason_says_where_the_function_failed(
    database: Database, writer: Writer, depth: int
) -> None:
    """From the function on, a line for each place; of a long way the two ends."""
    given(writer, 1)

    async def apply(_connection: AsyncConnection, message: Message) -> None:
        refuse(depth, message.payload)

    first, *places = (await ended(database, apply)).split("\n")
    assert first == "the function to apply raised KeyError"
    own = re.escape(__file__)
    found = [re.fullmatch(rf"  {own}:\d+ (\S+)|  \.\. (\d+) more", place) for place in places]
    names = [each and (each[1] or int(each[2])) for each in found]
    assert names[0] == "test_the_reason_says_where_the_function_failed.<locals>.apply"
    calls = ["refuse"] * (depth + 1)
    assert names[1:] == (calls if depth < 40 else ["refuse", depth - 5, *["refuse"] * 5])


@CANCELS
async def test_the_reason_says_where_a_function_hung(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CALL_TIMEOUT", 0.2)
    given(writer, 1)

    async def hang(connection: AsyncConnection, _message: Message) -> None:
        await connection.execute(SLOW)

    first, place, *_ = (await ended(database, hang)).split("\n")
    assert first.startswith("the function to apply raised CallTimedOut: ")
    assert place.endswith("<locals>.hang")


@CANCELS
@pytest.mark.parametrize("hang", ["in the database", "elsewhere"])
async def test_a_call_that_hangs_delays_its_own_subject_only(
    database: Database, writer: Writer, sql: psycopg.Connection, hang: str
) -> None:
    """Its transaction stays open meanwhile, on a connection of its own."""
    given(writer, 20)
    ends = anyio.Event()

    async def sometimes(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        if message.key == "Car/car-7" and not ends.is_set():
            await (connection.execute(SLOW) if hang == "in the database" else ends.wait())

    with anyio.fail_after(session.CALL_TIMEOUT - 2):
        async with running(applying(database, sometimes, drain=0.2)):
            await until(lambda: len(model(sql)) == 19)
            writer.write_many([event("car-7", 20), event("late", 21)])
            await until(lambda: len(model(sql)) == 20)
            assert "Car/car-7" not in model(sql)
            ends.set()
            if hang == "elsewhere":
                await until(lambda: model(sql).get("Car/car-7") == (2, 2))


@CANCELS
async def test_a_stop_does_not_wait_for_messages_that_are_not_applied(
    database: Database, writer: Writer, sql: psycopg.Connection
) -> None:
    given(writer)
    began = anyio.Event()

    async def endless(connection: AsyncConnection, message: Message) -> None:
        await count_move(connection, message)
        began.set()
        await connection.execute("SELECT pg_sleep(60)")

    publisher = applying(database, endless, drain=0.2)
    with anyio.fail_after(30):
        async with running(publisher):
            await began.wait()
    assert (model(sql), count(sql, "outbox")) == ({}, 12)
    assert await ended(database, count_move) == ""
    assert len(model(sql)) == 12
