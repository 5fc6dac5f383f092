"""What would break the promise of `transact` is refused, and nothing is stored."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from time import monotonic
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, OpenWriter, Running
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import OpenTransactor, Work, ids, open_transactor, own, own_rows

from dsql_outbox.observability.facts import Fact, TransactionStarted
from dsql_outbox.outbox import Database, Receipt, TransactionMisused
from dsql_outbox.writer import AsyncTransaction, AsyncWriter, Transaction, Writer, WriterSettings

pytestmark = pytest.mark.client

__all__ = ["open_transactor", "own"]


@pytest.fixture(params=["single", "plain"])
def form(request: pytest.FixtureRequest) -> WriterSettings:
    """Settings of each form of the writes."""
    return replace(QUICK, form=request.param)


@pytest.mark.parametrize("swallowed", [(), (TransactionMisused,)], ids=["raised", "swallowed"])
@pytest.mark.parametrize("end", ["ROLLBACK", "SELECT 1; COMMIT"])
def test_an_append_after_the_functions_own_end_is_refused_before_it_is_sent(
    open_transactor: OpenTransactor,
    proxy: PostgresProxy,
    own: Tables,
    form: WriterSettings,
    end: str,
    swallowed: tuple[type[Exception], ...],
) -> None:
    writer = open_transactor(proxy.url, form)
    writer.transact(lambda work: work.execute("SELECT 1"))
    proxy.reset_counts()

    def function(work: Work) -> None:
        work.execute(end)
        with suppress(*swallowed):
            work.append(work.new_event())

    with pytest.raises(TransactionMisused, match="ended the transaction"):
        writer.transact(function)
    own_statements = [each.strip() for each in proxy.statements if "dsql_outbox" not in each]
    assert own_statements == ["BEGIN", *end.split("; ")]
    assert ids(own) == set()
    assert isinstance(writer.transact(lambda work: work.append(work.new_event())), Receipt)


@pytest.mark.parametrize("swallowed", [(), (TransactionMisused,)], ids=["raised", "swallowed"])
def test_an_id_that_is_appended_twice_is_refused_in_the_first_run(
    open_transactor: OpenTransactor,
    own: Tables,
    url: str,
    form: WriterSettings,
    swallowed: tuple[type[Exception], ...],
) -> None:
    runs: list[Receipt] = []

    def function(work: Work) -> None:
        event = work.new_event()
        runs.append(work.append(event))
        with suppress(*swallowed):
            work.append(event)

    with pytest.raises(TransactionMisused, match="twice: nothing is stored; give each event an id"):
        open_transactor(url, form).transact(function)
    assert (len(runs), ids(own)) == (1, set())


def test_a_commit_in_a_template_is_seen(
    open_transactor: OpenTransactor, own: Tables, url: str
) -> None:
    """Templates came with Python 3.14; psycopg takes them as texts of statements."""

    def function(work: Work) -> None:
        connection: Any = work.transaction.connection
        connection.judge(SimpleNamespace(strings=("SELECT ", " ")))
        connection.judge(SimpleNamespace(strings=(" COMMIT",)))

    with pytest.raises(TransactionMisused, match="ended the transaction"):
        open_transactor(url).transact(function)
    assert ids(own) == set()


def test_no_commit_is_sent_after_the_deadline(
    open_transactor: OpenTransactor, proxy: PostgresProxy, own: Tables
) -> None:
    writer = open_transactor(proxy.url, QUICK)

    def function(work: Work) -> None:
        work.execute("INSERT INTO own VALUES (1)")
        work.append(work.new_event())
        later = monotonic() + 1.0  # than the deadline, which the call has set before
        wait_until(lambda: monotonic() > later)

    with pytest.raises(psycopg.OperationalError, match="the deadline of the call") as caught:
        writer.transact(function, timeout=1.0)
    assert caught.value.__notes__ == ["transact has stored nothing: attempts 1, conflicts 0"]
    assert "COMMIT" not in proxy.statements
    assert (ids(own), own_rows(own)) == (set(), 0)


def test_no_write_is_sent_after_the_deadline(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, form: WriterSettings
) -> None:
    """It could only end in doubt, and would be stored all the same."""

    def hook(fact: Fact) -> None:
        if isinstance(fact, TransactionStarted):
            later = monotonic() + 1.0  # than the deadline, which the call has set before
            wait_until(lambda: monotonic() > later)

    caller = open_writer(proxy.url, form, [hook])
    with pytest.raises(psycopg.OperationalError, match="the deadline of the call"):
        caller.write(workload_s.car_created(), timeout=1.0)
    assert not any("INSERT" in sql for sql in proxy.statements)
    assert tables.events() == []


async def coroutine_function(transaction: Transaction) -> None:
    transaction.append(workload_s.car_created())


def test_a_function_that_returns_an_awaitable_commits_nothing(url: str, own: Tables) -> None:
    def function(transaction: Transaction) -> object:
        transaction.append(workload_s.car_created())
        return coroutine_function(transaction)

    with (
        Writer(Database(url), QUICK) as writer,
        pytest.raises(TypeError, match="returned an awaitable"),
    ):
        writer.transact(function)
    assert ids(own) == set()


@pytest.mark.anyio
async def test_a_plain_function_given_to_an_async_writer_commits_nothing(
    url: str, own: Tables
) -> None:
    async with AsyncWriter(Database(url), QUICK) as writer:
        with pytest.raises(TypeError, match="give a plain function to Writer"):
            await writer.transact(lambda _: None)  # type: ignore[arg-type, return-value] # pyright: ignore[reportArgumentType]
    assert ids(own) == set()


@pytest.mark.anyio
async def test_an_append_that_was_not_awaited_is_an_error(url: str, own: Tables) -> None:
    async def function(transaction: AsyncTransaction) -> int:
        await transaction.append(workload_s.car_created())
        transaction.append(workload_s.loan_created())  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]
        return 7

    async with AsyncWriter(Database(url), QUICK) as writer:
        with (
            pytest.warns(RuntimeWarning, match="never awaited"),
            pytest.raises(TransactionMisused, match="1 append was not awaited"),
        ):
            await writer.transact(function)
        assert ids(own) == set()
        assert (await writer.write(workload_s.car_created())).attempts == 1


@pytest.mark.anyio
async def test_an_append_that_still_runs_when_the_function_returns_is_an_error(
    proxy: PostgresProxy, own: Tables, form: WriterSettings
) -> None:
    tasks: list[asyncio.Task[Receipt]] = []
    held = proxy.hold(matching="entities")

    async def function(transaction: AsyncTransaction) -> None:
        tasks.append(asyncio.ensure_future(transaction.append(workload_s.car_created())))
        await anyio.to_thread.run_sync(held.arrived)

    async with AsyncWriter(Database(proxy.url), form) as writer:
        with pytest.raises(TransactionMisused, match="not awaited"):
            await writer.transact(function)
        held.drop()
        with pytest.raises(psycopg.OperationalError):
            await tasks[0]
        assert ids(own) == set()
        assert (await writer.write(workload_s.car_created())).attempts == 1


@pytest.mark.anyio
async def test_appends_at_the_same_time_go_one_after_the_other(
    url: str, own: Tables, form: WriterSettings
) -> None:
    async def function(transaction: AsyncTransaction) -> list[Receipt]:
        events = [workload_s.car_created(f"CAR-{n % 2}") for n in range(6)]
        return await asyncio.gather(*(transaction.append(event) for event in events))

    async with AsyncWriter(Database(url), form) as writer:
        with anyio.fail_after(60):
            receipts = await writer.transact(function)
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})
    assert [receipt.entities[0].version for receipt in receipts] == [1, 1, 2, 2, 3, 3]


def test_appends_of_threads_go_one_after_the_other(
    url: str, own: Tables, form: WriterSettings
) -> None:
    def function(transaction: Transaction) -> list[Receipt]:
        events = [workload_s.car_created(f"CAR-{n}") for n in range(6)]
        return Running([partial(transaction.append, event) for event in events]).results()

    with Writer(Database(url), form) as writer:
        receipts = writer.transact(function)
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})


WRITES = ["write", "write_many", "transact"]


def arguments(method: str) -> Any:
    """What each of the methods takes."""
    if method == "transact":
        return lambda _: None
    event = workload_s.car_created("CAR-2")
    return [event] if method == "write_many" else event


@pytest.mark.parametrize("method", WRITES)
def test_a_write_inside_transact_is_refused(url: str, own: Tables, method: str) -> None:
    with Writer(Database(url), QUICK) as writer, Writer(Database(url), QUICK) as other:

        def function(transaction: Transaction) -> None:
            transaction.append(workload_s.car_created())
            getattr(writer, method)(arguments(method))

        with pytest.raises(TransactionMisused, match=f"{method} inside transact"):
            writer.transact(function)
        assert ids(own) == set()
        writer.transact(lambda _: other.write(workload_s.car_created()))
        writer.write(workload_s.car_created())
    assert len(ids(own)) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("coalesce", [0, 1])
async def test_a_write_inside_transact_is_refused_to_tasks_of_the_function_too(
    url: str, own: Tables, coalesce: int
) -> None:
    async with AsyncWriter(Database(url), replace(QUICK, coalesce=coalesce)) as writer:
        for method, in_task in product(WRITES, [False, True]):

            async def function(
                transaction: AsyncTransaction, method: str = method, *, in_task: bool = in_task
            ) -> None:
                await transaction.append(workload_s.car_created())
                write = getattr(writer, method)(arguments(method))
                await (asyncio.create_task(write) if in_task else write)

            with pytest.raises(TransactionMisused, match=f"{method} inside transact"):
                await writer.transact(function)
            assert ids(own) == set()
        await writer.write(workload_s.car_created())
    assert len(ids(own)) == 1


def test_other_threads_write_while_a_transact_runs(url: str, own: Tables) -> None:
    with Writer(Database(url), QUICK) as writer:

        def function(transaction: Transaction) -> UUID:
            receipt = transaction.append(workload_s.car_created("CAR-1"))
            written = threading.Thread(target=writer.write, args=[workload_s.car_created("CAR-2")])
            written.start()
            written.join(10.0)
            return receipt.event_id

        writer.transact(function)
    assert len(ids(own)) == 2


@pytest.mark.anyio
async def test_other_tasks_write_while_a_transact_runs_and_its_own_ones_after_it(
    url: str, own: Tables
) -> None:
    is_open, is_written, is_over = asyncio.Event(), asyncio.Event(), asyncio.Event()
    own_tasks: list[asyncio.Task[Receipt]] = []

    async with AsyncWriter(Database(url), QUICK) as writer:

        async def write_when(event: asyncio.Event, car: str) -> Receipt:
            await event.wait()
            return await writer.write(workload_s.car_created(car))

        async def function(transaction: AsyncTransaction) -> None:
            await transaction.append(workload_s.car_created("CAR-1"))
            own_tasks.append(asyncio.create_task(write_when(is_over, "CAR-2")))
            is_open.set()
            await is_written.wait()

        async def write_beside() -> None:
            await write_when(is_open, "CAR-3")
            is_written.set()

        with anyio.fail_after(60):
            beside = asyncio.create_task(write_beside())
            await writer.transact(function)
            await beside
            is_over.set()
            await own_tasks[0]
    assert len(ids(own)) == 3
