"""examples/fastapi, started by its one command: nothing is lost when its processes are killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import nats
import psycopg
import pytest
from tests.support.checkout import ROOT

from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.server_process import free_port

pytestmark = pytest.mark.slow

CUSTOMERS = ["ada", "ben", "cy"]
ORDERS = 60
HANDLED = """
SELECT s.subject_id, s.position, e.position
FROM outbox.inbox_subjects s
JOIN outbox.entities e ON e.entity_type = s.subject_type AND e.entity_id = s.subject_id
"""


class Example:
    """The running example: where it listens, and its lines up to now."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        assert process.stdout is not None
        self.url = f"http://127.0.0.1:{port}"
        self._lines = process.stdout

    def pid_of(self, name: str) -> int:
        """Read on until the next line that says that this program runs."""
        for line in self._lines:
            if found := re.fullmatch(rf"{name} runs, process (\d+)\n", line):
                return int(found[1])
        raise AssertionError(f"{name} was not started")

    def pids_of(self, *names: str) -> dict[str, int]:
        """Read on until the lines that say that these programs run, in any order."""
        found: dict[str, int] = {}
        while found.keys() != set(names):
            line = next(self._lines)
            if (match := re.fullmatch(r"(\w+) runs, process (\d+)\n", line)) and match[1] in names:
                found[match[1]] = int(match[2])
        return found

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False)


@contextmanager
def running(**environment: str) -> Iterator[Example]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.fastapi", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Example(process, port)
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def post(client: httpx.AsyncClient, order: dict[str, str]) -> dict[str, Any]:
    """Send an order until it is answered with 201, as a client with an id of its own does."""
    with anyio.fail_after(60):
        while True:
            with suppress(httpx.TransportError):
                answer = await client.post("/orders", json=order)
                if answer.status_code == httpx.codes.CREATED:
                    return dict(answer.json())
            await anyio.sleep(0.05)


async def until(client: httpx.AsyncClient, path: str, fits: Callable[[Any], bool]) -> Any:
    """Ask until the answer fits, and return it."""
    with anyio.fail_after(60):
        while True:
            with suppress(httpx.TransportError):
                answer = (await client.get(path)).json()
                if fits(answer):
                    return answer
            await anyio.sleep(0.05)


async def until_counted(client: httpx.AsyncClient, customer: str, orders: int) -> Any:
    return await until(client, f"/customers/{customer}", lambda a: a.get("orders") == orders)


async def published(url: str) -> list[dict[str, Any]]:
    """The headers of the messages in the stream, in its order."""
    client: Any = await nats.connect(url)
    try:
        stream = client.jetstream()
        count = (await stream.stream_info("ORDERS")).state.messages
        messages = await stream.subscribe("events.>", stream="ORDERS", ordered_consumer=True)
        return [(await messages.next_msg(timeout=5)).headers for _ in range(count)]
    finally:
        await client.close()


@pytest.mark.anyio
async def test_every_order_is_stored_published_in_order_and_counted_once_although_killed(
    database_url: str, nats_server: NatsServer, tmp_path: Path
) -> None:
    orders = [
        {"id": str(uuid4()), "customer": CUSTOMERS[n % 3], "amount": f"{n + 1}.25"}
        for n in range(ORDERS)
    ]
    receipts: dict[str, dict[str, Any]] = {}
    lake = tmp_path / "lake.jsonl"
    urls = {"SINK_URL": f"{nats_server.url}?stream=ORDERS", "LAKE_URL": f"jsonl:{lake}"}
    with running(DATABASE_URL=database_url, **urls) as example:
        async with example.client() as client:
            names = ("consumer", "api", "revenue")
            pids = await asyncio.to_thread(example.pids_of, *names)
            consumer, api, revenue = (pids[name] for name in names)
            await until(client, "/readyz", lambda answer: answer["ready"])

            async def send(part: list[dict[str, str]]) -> None:
                for order in part:
                    receipts[order["id"]] = await post(client, order)
                    if len(receipts) == ORDERS // 3:
                        os.kill(consumer, signal.SIGKILL)
                        os.kill(revenue, signal.SIGKILL)
                    if len(receipts) == ORDERS // 2:
                        os.kill(api, signal.SIGKILL)

            async with anyio.create_task_group() as tasks:
                for n in range(6):
                    tasks.start_soon(send, orders[n::6])
            balances = {c: await until_counted(client, c, ORDERS // 3) for c in CUSTOMERS}
            days = await until(client, "/revenue", lambda a: total_orders(a) == ORDERS)
            await until(client, "/revenue", lambda _: len(lines_of(lake)) >= ORDERS)
            assert await asyncio.to_thread(example.pid_of, "api") != api
    in_lake = list(dict.fromkeys(lines_of(lake)))
    assert sum(Decimal(day["total"]) for day in days) == sum(Decimal(o["amount"]) for o in orders)
    sent = await published(nats_server.url)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        stored = await rows(connection, "SELECT id FROM outbox.business_events")
        remembered = await rows(connection, "SELECT dedupe_id FROM outbox.inbox")
        handled = await rows(connection, HANDLED)
    assert sorted(str(event_id) for (event_id,) in stored) == sorted(receipts)
    assert sorted(dedupe_id for (dedupe_id,) in remembered) == sorted(receipts)
    assert sorted(customer for customer, _, _ in handled) == sorted(CUSTOMERS)
    assert all(last == newest for _, last, newest in handled)
    assert all(receipt["eventId"] == order_id for order_id, receipt in receipts.items())
    in_order = list(range(1, ORDERS // 3 + 1))
    for customer in CUSTOMERS:
        versions = [
            int(headers["ce-sequence"])
            for headers in sent
            if headers["ce-subject"] == f"Customer/{customer}"
        ]
        assert list(dict.fromkeys(versions)) == in_order
        assert [n for name, n in in_lake if name == f"Customer/{customer}"] == in_order
        total = sum(Decimal(o["amount"]) for o in orders if o["customer"] == customer)
        assert balances[customer] == {"orders": ORDERS // 3, "total": str(total)}


def total_orders(days: Any) -> int:
    return sum(day["orders"] for day in days)


def lines_of(lake: Path) -> list[tuple[str, int]]:
    """The subject and the version of each message in the lake."""
    text = lake.read_text() if lake.exists() else ""
    found = [
        json.loads(line)["headers"] for line in text.splitlines(keepends=True) if line[-1] == "\n"
    ]
    return [(headers["ce-subject"], int(headers["ce-sequence"])) for headers in found]


@pytest.mark.anyio
async def test_one_command_starts_all_of_it() -> None:
    with running() as example:
        async with example.client() as client:
            await asyncio.to_thread(example.pid_of, "api")
            receipt = await post(client, {"customer": "ada", "amount": "19.90"})
            assert receipt["status"] == "committed"
            assert (await until_counted(client, "ada", 1))["total"] == "19.90"


async def rows(connection: psycopg.AsyncConnection[Any], query: str) -> list[Any]:
    return await (await connection.execute(query.encode())).fetchall()


def test_the_page_describes_the_receipt_and_the_problems() -> None:
    code = "import json; from examples.fastapi.app import app; print(json.dumps(app.openapi()))"
    urls = {"DATABASE_URL": "postgresql://nowhere", "SINK_URL": "nats://nowhere?stream=ORDERS"}
    page = json.loads(
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=os.environ | urls)
    )
    answers = page["paths"]["/orders"]["post"]["responses"]
    receipt = answers["201"]["content"]["application/json"]["schema"]
    assert receipt == {"$ref": "#/components/schemas/Receipt"}
    assert set(answers) == {"201", "409", "413", "422", "503"}
    assert list(answers["409"]["content"]) == ["application/problem+json"]
