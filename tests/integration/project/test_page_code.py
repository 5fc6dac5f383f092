"""The Python of the pages for programmers, run in the order of each page.

A page leaves out what its reader has: imports, a table, a writer. Here a prelude brings it.
"""

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import CO_COROUTINE
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import anyio
import httpx
import nats
import psycopg
import pytest
from msgspec import structs
from pydantic import ValidationError
from tests.support.checkout import ROOT
from tests.support.driver_sessions import engine_url
from tests.support.inboxes import new_received
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.served_app import served
from tests.support.waiting import wait_for, wait_until

from dsql_outbox import AsyncWriter, Database, Entity, Event, Publisher, Writer
from dsql_outbox.inbox import AsyncInbox, Received
from dsql_outbox.operations import Targets
from dsql_outbox.publisher import open_sink
from dsql_outbox.testing import NatsServer, mapped

pytestmark = [pytest.mark.anyio, pytest.mark.client]

NAMES: Final = """
import json
from contextlib import asynccontextmanager

import psycopg
from psycopg_pool import ConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dsql_outbox import (
    AsyncTransaction, AsyncWriter, Database, Entity, Event, JsonEvent, Receipt, Writer,
)
"""


def blocks(page: str, language: str = "python") -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


async def ran(names: dict[str, Any], code: str) -> None:
    """Run a block in these names, as an interactive interpreter does: `await` may stand alone."""
    compiled = compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & CO_COROUTINE:
        await FunctionType(compiled, names)()
    else:
        await anyio.to_thread.run_sync(exec, compiled, names)


async def until(holds: Callable[[], bool]) -> None:
    await anyio.to_thread.run_sync(wait_until, holds)


@pytest.fixture
def shop(url: str) -> Iterator[dict[str, Any]]:
    """The names of a reader: the database with a table of their own, and a loan that is stored."""
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS loans, orders")
        connection.execute("CREATE TABLE loans (id int PRIMARY KEY, balance int)")
        connection.execute("CREATE TABLE orders (id serial PRIMARY KEY, item text)")
        connection.execute("INSERT INTO loans VALUES (7, 9000)")
    database = Database(url)
    with Writer(database) as writer:
        loan = Event.new("LoanOpened", [Entity("Loan", "LOAN-7", {"balance": 9000})])
        writer.write(loan)
        names: dict[str, Any] = {"__name__": "page", "url": url, "database": database}
        exec(NAMES, names)
        yield names | {"writer": writer, "new_event": lambda: Event.new("B", loan.entities)}


@pytest.fixture
def stored(url: str) -> Callable[[], list[str]]:
    def types() -> list[str]:
        with psycopg.connect(url) as connection:
            order = "SELECT event_type FROM outbox.business_events ORDER BY saved_date, position"
            return [kind for (kind,) in connection.execute(order)]

    return types


async def test_start(
    shop: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    nats_server: NatsServer,
) -> None:
    monkeypatch.setenv("DSQL_OUTBOX_DATABASE", url)
    monkeypatch.setattr("sys.argv", ["read.py", nats_server.url])
    drive, read = blocks("start.md")
    await ran(shop, drive)
    assert capsys.readouterr().out == "committed 1\n"
    async with open_sink(f"{nats_server.url}?stream=EVENTS") as sink:
        await Publisher(shop["database"], sink).run(until_empty=True)
    await anyio.to_thread.run_sync(exec, read, shop)
    assert capsys.readouterr().out.startswith("events.CarDriven ")


@pytest.fixture(params=["a session on asyncpg", "a pool of psycopg"])
async def orders(
    request: pytest.FixtureRequest,
    shop: dict[str, Any],
    proxy: PostgresProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the program of one's own stack, or of that with a pool, behind a proxy."""
    (program,), (lifespan, pool, *_) = blocks("my-stack.md"), blocks("fastapi.md")
    with psycopg.connect(shop["url"]) as connection:
        connection.execute(ORDERS)
    monkeypatch.setenv("DATABASE_URL", proxy.url)
    monkeypatch.setenv("SINK", f"jsonl:{tmp_path}/messages")
    # A reader of the page answers from the stored row.
    end, query = "    return Accepted(", "SELECT FROM orders WHERE total > 0"
    read = program.replace(end, f"    await session.execute(text({query!r}))\n{end}")
    await ran(shop, read)
    in_pool = pool.replace(end, f"    await connection.execute({query!r})\n{end}")
    await ran(shop, in_pool if "pool" in request.param else lifespan)
    async with served(shop["app"]) as server:
        yield server.client
    await shop["engine"].dispose()


ORDERS: Final = (
    "DROP TABLE orders; CREATE TABLE orders (id uuid PRIMARY KEY, total numeric NOT NULL)"
)
ORDER = {"id": "5f0c6a1e-6c3e-4a0a-9f43-2d8c1a5b7e90", "total": "12.50"}


def count(url: str) -> tuple[int, int]:
    """How many orders are stored, and how many events of orders."""
    with psycopg.connect(url) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM public.orders")
        ((events,),) = connection.execute(
            "SELECT count(*) FROM outbox.business_events WHERE event_type = 'OrderPlaced'"
        )
    return rows, events


async def test_a_request_of_fastapis_page_that_comes_again_gets_the_same_answer(
    orders: httpx.AsyncClient, url: str
) -> None:
    answers: list[httpx.Response] = []

    async def send() -> None:
        answers.append(await orders.post("/orders", json=ORDER))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(send)
    await send()
    assert [(a.status_code, a.json()) for a in answers] == [(201, {"order": ORDER["id"]})] * 5
    assert (await orders.post("/orders", json=ORDER | {"total": "12.51"})).status_code == 409
    assert count(url) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "stored"),
    [("a conflict", 0), ("a lost commit", 1), ("a cut before the commit", 0), ("a constraint", 0)],
)
async def test_a_failed_commit_on_fastapis_page_is_no_success_for_the_client(
    orders: httpx.AsyncClient, proxy: PostgresProxy, url: str, fault: str, stored: int
) -> None:
    match fault:
        case "a conflict":
            proxy.refuse(at="commit", matching="INSERT INTO orders")
        case "a lost commit":
            proxy.cut("after_commit", matching="COMMIT")
        case "a cut before the commit":
            proxy.cut("before", matching="COMMIT")
        case _:
            with psycopg.connect(url) as connection:
                connection.execute(REFUSING)
    answer = await orders.post("/orders", json=ORDER)
    if fault == "a constraint":
        assert answer.status_code == 500
        with psycopg.connect(url) as connection:
            connection.execute("DROP TRIGGER refusing ON orders")
    else:
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert count(url) == (stored, stored)
    again = await orders.post("/orders", json=ORDER)
    assert (again.status_code, again.json()) == (201, {"order": ORDER["id"]})
    assert count(url) == (1, 1)


REFUSING: Final = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE integrity_constraint_violation; END$$;
CREATE CONSTRAINT TRIGGER refusing AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""Every transaction that adds an order fails at its COMMIT."""


async def test_the_lifespan_of_fastapis_page_passes_the_state_on(
    shop: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (program,), (lifespan, *_) = blocks("my-stack.md"), blocks("fastapi.md")
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SINK", f"jsonl:{tmp_path}/messages")
    for block in program, lifespan:
        await ran(shop, block)
    async with shop["lifespan"](shop["app"]) as state:
        assert state["mine"] is ...


async def test_an_endpoint_that_is_called_twice_gives_its_own_answer_twice(
    shop: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with psycopg.connect(url) as connection:
        connection.execute("ALTER TABLE loans ALTER id TYPE text")
    for program in blocks("fastapi.md")[2:4]:
        await ran(shop, program)
    key = "5f0c6a1e-6c3e-4a0a-9f43-2d8c1a5b7e91"
    async with served(shop["app"]) as server:

        async def pay(path: str, amount: int) -> tuple[int, Any]:
            header = {"Idempotency-Key": key}
            answer = await server.client.post(path, json={"amount": amount}, headers=header)
            return answer.status_code, answer.json()

        answers = [await pay("/payments/7", 100) for _ in range(2)]
        assert answers == [(201, {"payment": key, "loan": "7", "amount": 100})] * 2
        code, receipt = await pay("/loans/7/payments", 100)
        assert (code, receipt["status"]) == (201, "duplicate")
        assert (await pay("/payments/7", 200))[0] == 409
    await shop["sessions"].kw["bind"].dispose()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT balance FROM loans").fetchall() == [(8900,)]


async def test_my_stack(
    shop: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (program,) = blocks("my-stack.md")
    with psycopg.connect(url) as connection:
        connection.execute(ORDERS)
        connection.execute("DELETE FROM outbox.outbox")  # that of the loan
    messages = tmp_path / "messages"
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("SINK", f"jsonl:{messages}")
    await ran(shop, program)
    async with served(shop["app"]) as server:
        answer = await server.client.post("/orders", json=ORDER)
        assert (answer.status_code, answer.json()) == (201, {"order": ORDER["id"]})
        again = await server.client.post("/orders", json=ORDER)
        assert (again.status_code, again.json()) == (201, {"order": ORDER["id"]})
        other = await server.client.post("/orders", json=ORDER | {"total": "12.51"})
        assert other.status_code == 409
        await until(lambda: messages.exists() and messages.read_text().endswith("\n"))
    (line,) = messages.read_text().splitlines()
    body = {"what": "OrderPlaced", "order": ORDER["id"], "total": "12.50"}
    assert json.loads(json.loads(line)["payload"]) == body


async def test_sqlalchemy(shop: dict[str, Any], stored: Callable[[], list[str]], url: str) -> None:
    await ran(shop, """
class Base(DeclarativeBase): ...
class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
""")  # fmt: skip
    shop["event"] = shop["new_event"]()
    opened, joined, retried = blocks("sqlalchemy.md")
    opened = opened.replace("postgresql+asyncpg://localhost/shop", engine_url(url, "asyncpg"))
    await ran(shop, opened.replace("postgresql://localhost/shop", url))
    async with shop["writer"]:
        await ran(shop, retried)
        await ran(shop, joined.replace("UPDATE loans SET ..", "UPDATE loans SET balance = 1"))
    await shop["engine"].dispose()
    assert stored() == ["LoanOpened", "OrderPlaced", "B"]


async def test_transactions(
    shop: dict[str, Any], stored: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pay, pool, in_turn, append_to, stream, state = blocks("transactions.md")
    shop["event"] = shop["new_event"]()
    own = append_to.replace("UPDATE loans SET ..", "UPDATE loans SET balance = 1")
    await ran(shop, own)
    await ran(shop, pool)
    async with AsyncWriter(shop["database"]) as shop["writer"]:
        for block in (pay, in_turn, stream.replace("after=12", "after=3")):
            await ran(shop, block)
        with pytest.raises(KeyError):  # the last event has no balance any more
            await ran(shop, state)
        await shop["writer"].write(shop["new_event"]())
        await ran(shop, state)
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["4", "LoanPaid"],
        ["5", "LoanPaid"],
    ]
    assert stored() == ["LoanOpened", "B", *["LoanPaid"] * 3, "B", "LoanPaid"]


async def test_events(shop: dict[str, Any], stored: Callable[[], list[str]]) -> None:
    shop["body"] = shop["new_event"]().to_json()
    for block in blocks("events.md"):
        await ran(shop, block)
    assert stored() == ["LoanOpened", "LoanPaid", "B"]


async def test_targets(shop: dict[str, Any], tmp_path: Path) -> None:
    code, *_ = blocks("targets.md")
    lake = tmp_path / "lake"
    code = code.replace("kafka://lake.example:9092", f"jsonl:{lake}")
    await ran(shop, code.replace(".run()", ".run(until_empty=True)"))
    await shop["add_and_relay"](shop["database"])
    shop["writer"].write(shop["new_event"]())
    await shop["add_and_relay"](shop["database"])  # it is there already
    assert [json.loads(line)["key"] for line in lake.read_text().splitlines()] == ["Loan/LOAN-7"]


async def test_inbox(
    shop: dict[str, Any], url: str, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its consumer outlives a pause, and an effect that fails at first."""
    monkeypatch.setattr("asyncio.wait_for", wait_for)
    program, *_ = blocks("inbox.md")
    own = {"nats://127.0.0.1:4222": nats_server.url, "postgresql://..": url}
    for theirs, ours in own.items():
        program = program.replace(theirs, ours)
    waits: list[float] = []

    def wait() -> float:
        waits.append(0.1)
        return waits[-1]

    shop["wait"] = wait
    await ran(shop, program.replace("timeout=60", "timeout=wait()").replace("delay=5", "delay=0.1"))
    event, sink = shop["new_event"](), f"{nats_server.url}?stream=EVENTS"

    async def relay() -> None:
        async with open_sink(sink) as opened:
            await Publisher(shop["database"], opened).run(until_empty=True)

    with psycopg.connect(url, autocommit=True) as connection:

        def mails() -> int:
            return len(connection.execute("SELECT loan FROM public.mails").fetchall())

        connection.execute("DROP TABLE IF EXISTS public.mails")
        await relay()
        consumer = asyncio.create_task(shop["main"]())
        try:
            await until(lambda: len(waits) > 1)  # the effect has failed
            connection.execute("CREATE TABLE public.mails (loan text)")
            await until(lambda: mails() == 1)
            before = len(waits)
            await until(lambda: len(waits) > before + 2)  # nothing came
            shop["writer"].write(event)
            await relay()
            await until(lambda: mails() == 2)
        finally:
            consumer.cancel()
            await asyncio.gather(consumer, return_exceptions=True)
        async with (
            await nats.connect(nats_server.url) as client,
            AsyncInbox(shop["database"], "batches") as shop["inbox"],
        ):
            await ran(shop, blocks("inbox.md")[2])
            batch = await client.jetstream().pull_subscribe("events.>", durable="batches")
            await shop["handle"]([*await batch.fetch(1), *await batch.fetch(1)])
            with anyio.fail_after(30):  # the broker counts an ack when it has it
                while (await batch.consumer_info()).num_ack_pending:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
        assert mails() == 4


async def test_inbox_in_sessions(
    shop: dict[str, Any], stored: Callable[[], list[str]], url: str
) -> None:
    await ran(shop, """
class Base(DeclarativeBase): ...
class Invoice(Base):
    __tablename__ = "invoices"
    order: Mapped[str] = mapped_column(primary_key=True)
""")  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute('DROP TABLE IF EXISTS invoices; CREATE TABLE invoices ("order" text)')
    _, lent, _, own, _ = blocks("inbox.md")
    lent = lent.replace("postgresql+asyncpg://..", engine_url(url, "asyncpg"))
    for block in lent.replace("postgresql://..", url), own:
        await ran(shop, block)
        message = new_received()
        for _ in range(2):
            await shop["handle"](message)
    await shop["inbox"].close()
    await shop["writer"].close()
    await shop["sessions"].kw["bind"].dispose()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM invoices").fetchall() == [(2,)]
    assert stored() == ["LoanOpened", "InvoiceMade", "InvoiceMade"]


async def test_a_poison_message(shop: dict[str, Any], url: str) -> None:
    """It is parked, and what follows it; another subject goes on, and all are handled at last."""
    await ran(shop, *blocks("consumers.md"))
    (table,) = blocks("consumers.md", "sql")
    broken, handled = True, list[int]()

    async def effect(message: Received, connection: psycopg.AsyncConnection) -> None:
        await connection.execute("SELECT 1")
        if broken and message.position == 1:
            raise ValueError("a secret")
        handled.append(message.position)

    shop["effect"] = effect
    first, second, other = (
        structs.replace(new_received(), subject_id=subject, position=position)
        for position, subject in enumerate(["LOAN-7", "LOAN-7", "LOAN-8"], 1)
    )
    async with (
        await psycopg.AsyncConnection.connect(url) as connection,
        AsyncInbox(shop["database"], "parking") as inbox,
    ):
        await connection.execute("DROP TABLE IF EXISTS public.parked")
        await connection.execute(table)
        await connection.commit()
        for message in first, first, second, other:  # the second time it is delivered again
            await shop["handle"](inbox, message, attempts=2, wait=0)
        assert handled == [3]
        rows = await connection.execute("SELECT position, reason FROM public.parked ORDER BY 1")
        assert await rows.fetchall() == [(1, "ValueError"), (2, "behind a parked message")]
        broken = False
        await shop["unpark"](first.key, connection)
    assert handled == [3, 1, 2]


def test_message_as_a_class() -> None:
    _, code = blocks("message.md")
    names: dict[str, Any] = {"__name__": "page"}

    def order(event_type: str, **members: object) -> Any:
        data = json.dumps({"entities": [{"id": "ORD-7", **members}]}).encode()
        message = structs.replace(new_received(), headers={"type": event_type}, data=data)
        return names["order_of"](message)

    exec(code, names)
    with pytest.raises(ValidationError) as refused:
        order("OrderPlaced.v2", cents="a secret")
    assert "a secret" not in str(refused.value)
    read = [order("OrderPlaced", total="12.50"), order("OrderPlaced.v2", cents=1250)]
    assert [(each.cents, each.currency) for each in read] == [(1250, "EUR")] * 2


async def test_read_models(shop: dict[str, Any], url: str) -> None:
    _, model, remembering = blocks("targets.md")
    (table,) = blocks("targets.md", "sql")
    database, event = shop["database"], shop["new_event"]()
    async with Targets(database) as targets:
        await targets.add("moves", kind="model")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS public.moves")
        connection.execute(table)
        await ran(shop, model)
        shop["writer"].write(event)
        await shop["main"](database)
        await ran(shop, remembering)
        shop["inbox"] = AsyncInbox(database, "moves")
        shop["writer"].write(shop["new_event"]())
        apply = Publisher(database, apply=shop["apply"], target="moves")
        assert (await apply.run(until_empty=True)).delivered == 1
        moves = connection.execute("SELECT car, number FROM public.moves").fetchall()
    assert moves == [("Loan/LOAN-7", 1)]


def test_your_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_order, golden_test, to_orders = blocks("your-own-format.md")
    names: dict[str, Any] = {"__name__": "page"}
    exec(to_order, names)
    exec(golden_test, names)
    monkeypatch.chdir(tmp_path)
    golden = tmp_path / "order.golden.json"
    golden.write_bytes(b'{"order_id":"ORD-7","total":"12.50"}')
    names["test_the_contract_of_billing"]()
    golden.write_bytes(b'{"order_id":"ORD-7","amount":"12.50"}')
    with pytest.raises(AssertionError):
        names["test_the_contract_of_billing"]()

    order = Entity("Order", "ORD-7", {"id": "ORD-7", "total": "12.50"})
    exec(to_orders, names)
    form = mapped(names["to_orders"], Event.new("OrderPlaced", [order]))
    assert json.loads(form.payload) == {"order_id": "ORD-7", "total": "12.50"}
    cancelled = mapped(names["to_orders"], Event.new("OrderCancelled", [order]))
    assert (form.broker_key, form.topic, cancelled.payload) == ("ORD-7", "prod.orders", b"")
