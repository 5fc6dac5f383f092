"""``make console-check``: time each page of the console on many rows, and look at it in a browser.

It fails when the median time of a page is above 200 ms, or when the browser finds a fault.
Without a browser it reports that and does the rest.
"""

import asyncio
import sys
from argparse import ArgumentParser
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from math import sin
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import httpx
import psycopg
from benchmarks.console.browser_check import Consoles, NoBrowser, look
from benchmarks.console.shown_pages import Shown, ids_of
from tests.support.database_roles import as_role, made_roles

from dsql_outbox.console import serve_console
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher import Publisher
from dsql_outbox.publisher.sinks.port import Answer
from dsql_outbox.schema import apply
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.testing import EmbeddedPostgres, MemorySink
from dsql_outbox.writer import AsyncWriter

COME: Final = """
INSERT INTO outbox.outbox
SELECT n %% 16, (extract(epoch FROM now()) * 1000000)::bigint + n, gen_random_uuid(), 0, 'Loan',
  'NEW-' || %(turn)s::int || '-' || n, 1, 'events.LoanCreated', '{}', '{}', 2, now()
FROM generate_series(1, %(rows)s) AS n
"""
GO: Final = """
DELETE FROM outbox.outbox AS o USING (
  SELECT shard, position, event_id FROM outbox.outbox WHERE subject_id LIKE 'NEW-%%'
  ORDER BY shard, position LIMIT %(rows)s) AS g
WHERE o.shard = g.shard AND o.position = g.position AND o.event_id = g.event_id
"""
LIMIT: Final = 0.2
TIMES: Final = 15
TIMES_IF_BRIEF: Final = 3


async def main(rows: int, pictures: Path | None, *, brief: bool) -> int:
    with EmbeddedPostgres() as server:
        owner = server.create_database("console")
        apply(Database(owner))
        with psycopg.connect(owner, autocommit=True) as connection:
            began = perf_counter()
            text = (Path(__file__).parent / "rows.sql").read_text()
            connection.execute(text.format(rows=rows // 4 * 4).encode())
            print(f"{rows:,} rows in each table, loaded in {perf_counter() - began:.0f} s")
            shown = ids_of(connection)
        with made_roles(owner, Roles(reader="looker", writer="nobody")):
            grant(Database(owner), Roles(reader="looker"))
            async with (
                healthy_outbox(server) as healthy,
                console_at(healthy) as well,
                traffic(owner),
                console_at(Database(as_role(owner, "looker"))) as url,
                console_at(Database(as_role(owner, "nobody"))) as bare,
            ):
                slow = await timed(url, shown, TIMES_IF_BRIEF if brief else TIMES)
                faults = await seen(Consoles(url, bare, well), shown, pictures, brief=brief)
    for each in (*slow, *faults):
        print(f"FAULT {each}")
    return 1 if slow or faults else 0


@asynccontextmanager
async def console_at(database: Database) -> AsyncGenerator[str]:
    ready = asyncio.get_running_loop().create_future()
    tell: Callable[[str], object] = ready.set_result
    serve = partial(serve_console, database, open_to_this_machine=True)
    task = asyncio.create_task(serve(port=0, interval=0.5, ready=tell))
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        yield await ready
    finally:
        task.cancel()
        await asyncio.wait({task})


class UnhurriedSink(MemorySink):
    """A sink that takes its time, so that some messages wait."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await asyncio.sleep(0.3)
        await super().publish(messages, answer)


@asynccontextmanager
async def healthy_outbox(server: EmbeddedPostgres) -> AsyncGenerator[Database]:
    """An outbox to which events come, and whose publisher keeps up."""
    database = Database(server.create_database("healthy"))
    apply(database)
    publisher = Publisher(database, UnhurriedSink())
    tasks = {asyncio.create_task(publisher.run()), asyncio.create_task(_write_events(database))}
    try:
        yield database
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _write_events(database: Database) -> None:
    async with AsyncWriter(database) as writer:
        for turn in count():
            loan = Entity("Loan", f"LOAN-{turn % 40}", {"balance": str(turn)})
            await writer.write(Event.new("LoanPaymentSubmitted", [loan]))
            await asyncio.sleep(0.08 + 0.05 * sin(turn / 20))


@asynccontextmanager
async def traffic(url: str) -> AsyncGenerator[None]:
    """Let messages come and go, so that the charts show something."""
    task = asyncio.create_task(_come_and_go(url))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _come_and_go(url: str) -> None:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with connection:
        for turn in count():
            wave = round(20 + 15 * sin(turn / 9))
            await connection.execute(COME, {"rows": wave, "turn": turn})
            await connection.execute(GO, {"rows": 40 - wave})
            await asyncio.sleep(0.1)


async def timed(url: str, shown: Shown, number: int) -> list[str]:
    slow = []
    print(f"\n{'page':<52}{'p50 ms':>8}{'max ms':>8}{'KiB':>7}")
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        for name, path in shown.pages():
            times = []
            for _ in range(number):
                began = perf_counter()
                answer = await client.get(path)
                times.append(perf_counter() - began)
            size = len(answer.content) / 1024
            print(f"{name:<52}{median(times) * 1e3:>8.1f}{max(times) * 1e3:>8.1f}{size:>7.1f}")
            if answer.status_code != httpx.codes.OK:
                slow.append(f"{name}: {answer.status_code}")
            elif median(times) > LIMIT:
                slow.append(f"{name}: {median(times):.3f} s, more than {LIMIT} s")
    return slow


async def seen(
    consoles: Consoles, shown: Shown, pictures: Path | None, *, brief: bool
) -> list[str]:
    try:
        return await look(consoles, shown, pictures, brief=brief)
    except NoBrowser as error:
        print(f"\nnot seen in a browser: {error}")
        return []


parser = ArgumentParser(prog="make console-check")
parser.add_argument("--rows", type=int, default=1_000_000, help="rows of each table, 1000 or more")
parser.add_argument("--pictures", type=Path, help="a folder for screenshots")
parser.add_argument("--brief", action="store_true", help="fewer times, and only the pictured pages")
given = parser.parse_args()
sys.exit(asyncio.run(main(given.rows, given.pictures, brief=given.brief)))
