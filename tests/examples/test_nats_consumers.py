"""The consumers of NATS on docs/inbox.md and in examples/fastapi keep the order of each subject."""

import asyncio
import re
from collections import Counter
from functools import partial
from typing import Any

import nats
import psycopg
import pytest
from anyio import to_thread
from psycopg import AsyncConnection
from tests.support.checkout import ROOT
from tests.support.waiting import wait_for, wait_until

from dsql_outbox import Message
from dsql_outbox.inbox import Received
from dsql_outbox.publisher import Delivered, open_sink
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import in_order, new_message

pytestmark = pytest.mark.anyio

SUBJECTS, MOVES = 5, 12
ALL = SUBJECTS * MOVES


def page(server: NatsServer, url: str) -> str:
    """The program of the page, for these servers."""
    text = (ROOT / "docs/inbox.md").read_text(encoding="utf-8")
    program: str = re.findall(r"(?ms)^```python\n(.*?)^```$", text)[0]
    for theirs, ours in {"nats://127.0.0.1:4222": server.url, "postgresql://..": url}.items():
        program = program.replace(theirs, ours)
    return program


def example(server: NatsServer, url: str) -> str:
    """The program of the example, for these servers."""
    program = (ROOT / "examples/fastapi/consumer.py").read_text(encoding="utf-8")
    program = program.replace('os.environ["SINK_URL"]', repr(server.url))
    return program.replace('os.environ["DATABASE_URL"]', repr(url))


def moves(first: int, last: int) -> list[Message]:
    """These messages of each subject, in order."""
    return [
        new_message(
            f"Car/{n}",
            topic="events.OrderCreated",
            sequence=str(number),
            position=str(number),
            previousposition=str(number - 1),
        )
        for number in range(first, last + 1)
        for n in range(SUBJECTS)
    ]


@pytest.mark.parametrize(("program", "function"), [(page, "effect"), (example, "count")])
async def test_errors_cancelled_tasks_and_messages_of_others_lose_no_order(
    nats_server: NatsServer,
    url: str,
    program: Any,
    function: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncio.wait_for", wait_for)
    calls = Counter[str]()

    async def effect(message: Received, connection: AsyncConnection) -> None:
        calls["all"] += 1
        insert = "INSERT INTO public.handled (subject, sequence) VALUES (%s, %s)"
        await connection.execute(insert, (message.key, int(message.headers["sequence"])))
        if calls["all"] % 7 == 0:
            raise RuntimeError("the handler fails")

    source = re.sub(r"delay=\d", "delay=0.05", program(nats_server, url))
    # What a consumer had when it was cancelled comes after this time, by default half a minute.
    source = re.sub(r"(ack_wait=\d, )?max_ack_pending", "ack_wait=0.2, max_ack_pending", source)
    names: dict[str, Any] = {"__name__": "consumer"}
    exec(source, names)
    names[function] = effect

    async def publish(first: int, last: int) -> None:
        async with open_sink(f"{nats_server.url}?stream=ORDERS") as sink:
            sent = await in_order(sink, moves(first, last))
        assert set(sent.outcomes) == {Delivered()}

    await publish(1, MOVES // 2)
    connected: Any = await nats.connect(nats_server.url)
    async with connected as client:
        await client.jetstream().publish("events.OrderCreated", b"a secret")
    await publish(MOVES // 2 + 1, MOVES)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS handled")
        table = "CREATE TABLE handled (number serial PRIMARY KEY, subject text, sequence int)"
        connection.execute(table)

        def handled() -> list[tuple[str, int]]:
            query = "SELECT subject, sequence FROM handled ORDER BY number"
            return connection.execute(query).fetchall()

        async def consume_until(number: int) -> None:
            consumer = asyncio.create_task(names["main"]())
            enough = partial(wait_until, lambda: len(handled()) >= number or consumer.done(), 60)
            await to_thread.run_sync(enough)
            assert not consumer.done(), "nothing ends it"
            consumer.cancel()
            await asyncio.gather(consumer, return_exceptions=True)

        # Each handles some: one that is cancelled while it connects would leave its socket open.
        while (before := len(handled())) < ALL:
            await consume_until(min(before + ALL // 4, ALL))
        found = handled()

    assert len(found) == ALL
    for n in range(SUBJECTS):
        assert [number for key, number in found if key == f"Car/{n}"] == list(range(1, MOVES + 1))
    assert "another sender" in caplog.text
    assert "a secret" not in caplog.text
