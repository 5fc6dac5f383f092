"""A read model that is filled beside writers equals the truth, whatever is killed meanwhile."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from random import Random
from threading import Event as Flag
from threading import Thread

import psycopg
import pytest
from tests.support.commands import Command
from tests.support.publisher.running_relays import event
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer

CARS, BEFORE, PAGE = 13, 390, 10

FILL = f"""
import sys
import anyio
from dsql_outbox.outbox import Database
from dsql_outbox.operations import Targets
from dsql_outbox.operations import fills, targets

fills.PAGE_ROWS, fills.LEASE, targets.LONGEST_TRANSACTION = {PAGE}, 0.5, 0.1

async def main():
    async with Targets(Database(sys.argv[1])) as tool:
        await tool.add("moves", kind="model", from_start=True)

anyio.run(main)
"""

WRONG = """
SELECT * FROM
  (SELECT 'Car/' || subject_id AS car, count(*) AS number, count(*) AS last
   FROM outbox.business_events GROUP BY 1) AS truth
FULL JOIN moves USING (car, number, last)
WHERE truth.car IS NULL OR moves.car IS NULL
"""

APPLYING = ("-m", "tests.support.publisher.applying_process")

Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process; all end with the test."""
    with ExitStack() as processes:

        def start(program: Sequence[str], *words: str) -> Command:
            return processes.enter_context(Command(*words, program=program))

        yield start


@pytest.fixture
def writing(outbox_url: str) -> Iterator[Flag]:
    """Write events of all cars in the background until the flag is set."""
    ended = Flag()

    def work() -> None:
        with Writer(Database(outbox_url)) as writer:
            for n in range(BEFORE, 100 * BEFORE):
                writer.write(event(f"car-{n % CARS}", n))
                if ended.wait(0.02):
                    return

    thread = Thread(target=work)
    thread.start()
    yield ended
    ended.set()
    thread.join()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_model_that_is_filled_equals_the_truth_whatever_is_killed(
    start: Start, outbox_url: str, kills: int, request: pytest.FixtureRequest
) -> None:
    with Writer(Database(outbox_url)) as writer:
        writer.write_many([event(f"car-{n % CARS}", n) for n in range(BEFORE)])
    writing = request.getfixturevalue("writing")
    random = Random(20261128 + kills)
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        sql.execute("CREATE TABLE moves (car text PRIMARY KEY, number int, last int)")
        applying: Command | None = None
        for _ in range(kills):
            victim = start(("-c", FILL), outbox_url)
            pages = 1 + random.randrange(2 * BEFORE // PAGE // kills)
            reached = read(sql) + PAGE * pages
            wait_until(lambda reached=reached: read(sql) >= reached or is_full(sql), timeout=60)
            victim.signal(signal.SIGKILL)
            applying = applying or start(APPLYING, outbox_url, "moves")
        assert start(("-c", FILL), outbox_url).wait().code == 0
        assert is_full(sql)
        writing.set()
        waiting = "SELECT FROM outbox.outbox WHERE shard >= 1024"
        wait_until(lambda: not sql.execute(waiting).fetchall(), timeout=60)
        assert sql.execute(WRONG).fetchall() == []
        assert sql.execute("SELECT count(*) FROM moves").fetchall() == [(CARS,)]
        assert sql.execute("SELECT count(*) FROM outbox.dead_letters").fetchall() == [(0,)]


def read(sql: psycopg.Connection) -> int:
    """How many events the fill has read."""
    rows = sql.execute("SELECT events FROM outbox.outbox_fills").fetchall()
    return rows[0][0] if rows else 0


def is_full(sql: psycopg.Connection) -> bool:
    """Whether the fill has ended."""
    return sql.execute("SELECT state FROM outbox.outbox_fills").fetchall() == [("done",)]
