"""What the function leaves of its session: it is clean when the next call gets it, or closed."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import anyio
import psycopg
import pytest
from psycopg.adapt import Dumper
from psycopg.pq import TransactionStatus
from tests.support.publisher.running_relays import until
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK

from dsql_outbox.inbox import AsyncInbox, Inbox
from dsql_outbox.outbox import Database, TransactionMisused
from dsql_outbox.writer import AsyncTransaction, AsyncWriter, Transaction, Writer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("pg_stat_activity")]


@pytest.fixture
def rows(url: str) -> str:
    """A table for the effects of functions, by the number of their call."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("CREATE TABLE IF NOT EXISTS public.effects_by_call (call int)")
        sql.execute("TRUNCATE public.effects_by_call")
    return url


def calls_with_rows(url: str) -> list[int]:
    """The calls whose effects are stored."""
    with psycopg.connect(url) as sql:
        found = sql.execute("SELECT call FROM public.effects_by_call ORDER BY call")
        return [call for (call,) in found]


def until_none_is_open(url: str) -> None:
    """Wait until no session of the database is in a transaction, but the one that asks."""
    with psycopg.connect(url, autocommit=True) as sql:
        wait_until(lambda: not _open_transactions(sql))


def _open_transactions(sql: psycopg.Connection) -> int:
    return sql.execute(
        "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    ).rowcount


async def insert(connection: Any, call: int) -> None:
    await connection.execute("INSERT INTO public.effects_by_call VALUES (%s)", (call,))


async def fails_beside_a_pipeline(connection: psycopg.AsyncConnection[Any]) -> None:
    """Raise while a sibling task is in its pipeline, as `gather` does not cancel it."""
    is_open, is_over = asyncio.Event(), asyncio.Event()

    async def part() -> None:
        with suppress(Exception):
            async with connection.pipeline():
                await (await connection.execute("SELECT 1")).fetchone()
                is_open.set()
                await is_over.wait()

    async def fails() -> None:
        await is_open.wait()
        raise LookupError

    task = asyncio.current_task()
    assert task is not None
    task.add_done_callback(lambda _: is_over.set())
    await asyncio.gather(part(), fails())


async def fails_in_an_open_pipeline(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.pipeline().__aenter__()
    raise LookupError


@pytest.mark.parametrize("fails", [fails_beside_a_pipeline, fails_in_an_open_pipeline])
@pytest.mark.parametrize("ways", ["transact", "once"])
async def test_no_call_commits_what_a_failed_one_left_in_a_pipeline(
    rows: str, ways: str, fails: Callable[[Any], Awaitable[None]]
) -> None:
    async def first(connection: Any) -> None:
        await insert(connection, 1)
        await fails(connection)

    async def second(connection: Any) -> None:
        await insert(connection, 2)

    database = Database(rows)
    if ways == "transact":
        async with AsyncWriter(database, QUICK) as writer:
            with pytest.raises(LookupError):
                await writer.transact(lambda each: first(each.connection))
            until_none_is_open(rows)
            await writer.transact(lambda each: second(each.connection))
    else:
        async with AsyncInbox(database, "mailer") as inbox:
            with pytest.raises(LookupError):
                await inbox.once("m1", first)
            until_none_is_open(rows)
            assert (await inbox.once("m2", second)).ran
            assert (await inbox.once("m1", second)).ran
    assert calls_with_rows(rows) == ([2] if ways == "transact" else [2, 2])


@pytest.mark.parametrize("ways", ["transact", "once"])
def test_no_call_of_a_thread_commits_what_a_failed_one_left_in_a_pipeline(
    rows: str, ways: str
) -> None:
    kept: list[Any] = []

    def first(connection: Any) -> None:
        connection.execute("INSERT INTO public.effects_by_call VALUES (1)")
        kept.append(connection.pipeline())
        kept[0].__enter__()
        raise LookupError

    def second(connection: Any) -> None:
        connection.execute("INSERT INTO public.effects_by_call VALUES (2)")

    database = Database(rows)
    if ways == "transact":
        with Writer(database, QUICK) as writer:
            with pytest.raises(LookupError):
                writer.transact(lambda each: first(each.connection))
            until_none_is_open(rows)
            writer.transact(lambda each: second(each.connection))
    else:
        with Inbox(database, "mailer") as inbox:
            with pytest.raises(LookupError):
                inbox.once("m1", first)
            until_none_is_open(rows)
            assert inbox.once("m2", second).ran
            assert inbox.once("m1", second).ran
    with pytest.raises(TransactionMisused):
        kept[0].__exit__(None, None, None)
    assert calls_with_rows(rows) == ([2] if ways == "transact" else [2, 2])


SERIES = "SELECT generate_series(1, 9)"


@pytest.mark.parametrize("way", ["stream", "copy"])
def test_an_append_inside_a_statement_ends_with_the_time_of_the_call(rows: str, way: str) -> None:
    """psycopg's lock is held for all of `stream` and `copy`."""

    def function(transaction: Transaction) -> None:
        cursor = transaction.connection.cursor()
        if way == "stream":
            for _ in cursor.stream(SERIES):
                transaction.append(workload_s.car_created())
        else:
            with cursor.copy("COPY public.effects_by_call FROM STDIN"):
                transaction.append(workload_s.car_created())

    with Writer(Database(rows), QUICK) as writer:
        writer.transact(lambda each: each.append(workload_s.car_created()))  # it is connected
        with pytest.raises(psycopg.OperationalError, match="inside of its stream"):
            writer.transact(function, timeout=1.0)
        writer.transact(lambda each: each.append(workload_s.car_created()))


@pytest.mark.parametrize("way", ["stream", "copy"])
async def test_an_append_of_a_task_inside_a_statement_ends_with_the_time_of_the_call(
    rows: str, way: str
) -> None:
    async def function(transaction: AsyncTransaction) -> None:
        cursor = transaction.connection.cursor()
        if way == "stream":
            async for _ in cursor.stream(SERIES):
                await transaction.append(workload_s.car_created())
        else:
            async with cursor.copy("COPY public.effects_by_call FROM STDIN"):
                await transaction.append(workload_s.car_created())

    async with AsyncWriter(Database(rows), QUICK) as writer:
        await writer.transact(lambda each: each.append(workload_s.car_created()))  # it is connected
        with pytest.raises(psycopg.OperationalError, match="inside of its stream"):
            await writer.transact(function, timeout=1.0)
        await writer.transact(lambda each: each.append(workload_s.car_created()))


@pytest.mark.parametrize("swallows", [True, False])
@pytest.mark.parametrize("ways", ["transact", "once"])
def test_a_connection_that_a_thread_of_the_function_closed_is_no_outage(
    rows: str, ways: str, *, swallows: bool
) -> None:
    """The function would close the next one too, so it does not run again."""
    runs: list[int] = []

    def closing(connection: Any) -> None:
        runs.append(1)
        thread = threading.Thread(target=_close_when_asleep, args=(rows, connection))
        thread.start()
        try:
            with suppress(*[psycopg.Error] if swallows else []):
                connection.execute("SELECT pg_sleep(60)")
        finally:
            thread.join()

    error = TransactionMisused if swallows else psycopg.OperationalError
    database = Database(rows)
    if ways == "transact":
        with Writer(database, QUICK) as writer, pytest.raises(error):
            writer.transact(lambda each: closing(each.connection))
    else:
        with Inbox(database, "mailer") as inbox, pytest.raises(error):
            inbox.once("m1", closing)
    assert len(runs) == 1


def _close_when_asleep(url: str, connection: Any) -> None:
    asleep = "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND pid = %s"
    pid = connection.info.backend_pid
    with psycopg.connect(url, autocommit=True) as sql:
        wait_until(lambda: sql.execute(asleep, (pid,)).rowcount)
        connection.close()
        sql.execute("SELECT pg_terminate_backend(%s)", (pid,))  # it would sleep on


class SlowText:
    """A parameter that takes as long to encode as `is_encoded` is not set."""

    def __init__(self) -> None:
        self.is_begun = threading.Event()
        self.is_encoded = threading.Event()


class SlowDumper(Dumper):
    """Encodes a `SlowText`."""

    def dump(self, obj: SlowText) -> bytes:
        obj.is_begun.set()
        obj.is_encoded.wait(60)
        return b"1"


class LateThread:
    """A thread of a function, whose statement is being encoded when the function ends."""

    def __init__(self, connection: Any) -> None:
        self.error: BaseException | None = None
        self._value = SlowText()
        connection.adapters.register_dumper(SlowText, SlowDumper)
        self._thread = threading.Thread(target=self._insert, args=(connection,))
        self._thread.start()
        assert self._value.is_begun.wait(60)

    def _insert(self, connection: Any) -> None:
        try:
            connection.execute(
                "INSERT INTO public.effects_by_call VALUES (%s::text::int)", (self._value,)
            )
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def end(self) -> None:
        """Let it send its statement, and wait until it is over."""
        self._value.is_encoded.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextmanager
def calling(url: str, ways: str) -> Generator[Callable[[Callable[[Any], None]], Any]]:
    """Calls functions of a connection in a thread, in `transact` or `once`."""
    if ways == "transact":
        with Writer(Database(url), QUICK) as writer:
            yield lambda function: writer.transact(lambda each: function(each.connection))
    else:
        numbers = count()
        with Inbox(Database(url), "mailer") as inbox:
            yield lambda function: inbox.once(f"m{next(numbers)}", function)


@pytest.mark.parametrize("ends", ["returns", "raises"])
@pytest.mark.parametrize("ways", ["transact", "once"])
def test_a_statement_that_is_encoded_when_its_run_ends_is_never_sent(
    rows: str, ways: str, ends: str
) -> None:
    """Neither does the end of the run wait for it: the thread is held until the next call runs."""
    late: list[LateThread] = []

    def first(connection: Any) -> None:
        late.append(LateThread(connection))
        if ends == "raises":
            raise LookupError

    def second(connection: Any) -> None:
        late[0].end()
        connection.execute("INSERT INTO public.effects_by_call VALUES (2)")

    with calling(rows, ways) as call:
        with pytest.raises(TransactionMisused if ends == "returns" else LookupError):
            call(first)
        call(second)
    assert isinstance(late[0].error, psycopg.OperationalError)
    assert calls_with_rows(rows) == [2]


@pytest.mark.parametrize("ways", ["transact", "once"])
def test_a_thread_that_waits_for_the_server_when_its_run_ends_is_woken(
    rows: str, ways: str
) -> None:
    ended: list[BaseException] = []

    def sleep(connection: Any) -> None:
        try:
            connection.execute("SELECT pg_sleep(600)")
        except psycopg.Error as error:
            ended.append(error)

    def function(connection: Any) -> None:
        threads.append(threading.Thread(target=sleep, args=(connection,)))
        threads[0].start()
        wait_until(lambda: connection.info.transaction_status is TransactionStatus.ACTIVE)
        raise LookupError

    threads: list[threading.Thread] = []
    with calling(rows, ways) as call, pytest.raises(LookupError):
        call(function)
    threads[0].join(60)
    assert [type(each) for each in ended] == [psycopg.OperationalError]
    assert "deadline" not in str(ended[0])


async def test_a_task_that_waits_for_the_server_when_its_run_ends_is_woken(rows: str) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def function(connection: psycopg.AsyncConnection[Any]) -> None:
        tasks.append(asyncio.create_task(connection.execute("SELECT pg_sleep(600)")))  # type: ignore[arg-type]
        await until(lambda: connection.info.transaction_status is TransactionStatus.ACTIVE)
        raise LookupError

    async with AsyncInbox(Database(rows), "mailer") as inbox:
        with pytest.raises(LookupError):
            await inbox.once("m1", function)
        with anyio.fail_after(60), pytest.raises(psycopg.OperationalError) as woken:
            await tasks[0]
    assert "deadline" not in str(woken.value)


@pytest.mark.parametrize("ways", ["transact", "once"])
def test_a_thread_that_goes_on_after_its_run_changes_no_call(rows: str, ways: str) -> None:
    """Each call ends with its own error, at once, and leaves nothing."""
    threads: list[threading.Thread] = []

    def go_on(connection: Any) -> None:
        with suppress(psycopg.Error, TransactionMisused):
            while True:
                connection.execute("INSERT INTO public.effects_by_call VALUES (1)")

    def function(connection: Any) -> None:
        threads.append(threading.Thread(target=go_on, args=(connection,)))
        threads[-1].start()
        connection.execute("SELECT 1")
        raise LookupError

    with calling(rows, ways) as call:
        for _ in range(60):
            with pytest.raises(LookupError):
                call(function)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        call(lambda connection: connection.execute("SELECT 1"))
    assert calls_with_rows(rows) == []


_CRASHES = """
import sys, threading
from contextlib import suppress
from random import Random
from dsql_outbox import Database, Writer
from dsql_outbox.inbox import Inbox

url, ways, seed = sys.argv[1:]
random, threads = Random(seed), []


def function(connection):
    is_begun = threading.Event()
    text = "x" * random.randrange(2_000_000, 4_000_000)

    def send():
        with suppress(Exception):
            while True:
                is_begun.set()
                connection.execute("SELECT length(%s)", (text,))

    threads.append(threading.Thread(target=send))
    threads[-1].start()
    is_begun.wait()
    if random.random() < 0.5:
        connection.execute("SELECT 1")
    raise LookupError


with Writer(Database(url)) as writer, Inbox(Database(url), "mailer") as inbox:
    for n in range(40):
        with suppress(LookupError):
            if ways == "transact":
                writer.transact(lambda each: function(each.connection))
            else:
                inbox.once(f"m{n}", function)
for thread in threads:
    thread.join()
print("done")
"""


@pytest.mark.parametrize(("ways", "seed"), [("transact", "1"), ("once", "2")])
def test_a_thread_in_libpq_when_its_run_ends_does_not_crash_the_process(
    rows: str, ways: str, seed: str
) -> None:
    """It sends parameters of 2 to 4 MB, so libpq has it most of the time."""
    ended = subprocess.run(
        [sys.executable, "-c", _CRASHES, rows, ways, seed],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
