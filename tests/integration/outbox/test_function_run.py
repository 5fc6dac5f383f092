"""What the user's function may do to our transaction: one table for every body that calls one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

import anyio
import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row, tuple_row
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK

from dsql_outbox.inbox import AsyncInbox
from dsql_outbox.outbox import Database, Message, TransactionMisused
from dsql_outbox.publisher import Publisher, PublisherSettings, Rebuild
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("pg_terminate_backend, DO, COPY")]

OK: Final = "committed"

_RAISE: Final = "DO $$ BEGIN RAISE EXCEPTION 'secret' USING errcode = '{}'; END $$"


class Run(NamedTuple):
    """One run of the function: its connection, its number from 1, and a place to keep things."""

    connection: psycopg.AsyncConnection[Any]
    number: int
    kept: list[Any]

    async def effect(self) -> None:
        """Change the read model."""
        await self.connection.execute("INSERT INTO public.effects VALUES (1)")

    async def sql(self, text: str) -> None:
        """Run any statement."""
        await self.connection.execute(text.encode())


async def nothing(run: Run) -> None:
    await run.effect()


async def swallows_an_error(run: Run) -> None:
    await run.effect()
    with suppress(psycopg.Error):
        await run.sql("SELECT 1/0")


async def swallows_an_error_and_goes_on(run: Run) -> None:
    await swallows_an_error(run)
    with suppress(psycopg.Error):
        await run.effect()


async def undoes_an_error_by_a_savepoint(run: Run) -> None:
    with suppress(psycopg.Error):
        async with run.connection.transaction():
            await run.sql("SELECT 1/0")
    await run.effect()


async def swallows_a_conflict_once(run: Run) -> None:
    await run.effect()
    if run.number == 1:
        with suppress(psycopg.Error):
            await run.sql(_RAISE.format("40001"))


async def hides_a_conflict_once(run: Run) -> None:
    await run.effect()
    if run.number == 1:
        try:
            await run.sql(_RAISE.format("40P01"))
        except psycopg.Error:
            raise LookupError from None


async def swallows_a_lost_connection_once(run: Run) -> None:
    await run.effect()
    if run.number == 1:
        with suppress(psycopg.Error):
            await run.sql("SELECT pg_terminate_backend(pg_backend_pid())")


async def loses_the_connection_once(run: Run) -> None:
    await run.effect()
    if run.number == 1:
        await run.sql("SELECT pg_terminate_backend(pg_backend_pid())")


async def is_interrupted(run: Run) -> None:
    await run.effect()
    await run.sql(_RAISE.format("57014"))


async def waits_for_a_lock_too_long(run: Run) -> None:
    await run.effect()
    await run.sql(_RAISE.format("55P03"))


async def meets_another_database_that_is_out_of_reach(run: Run) -> None:
    await run.effect()
    raise psycopg.OperationalError("the other database")


async def raises_a_conflict_of_another_database(run: Run) -> None:
    await run.effect()
    raise errors.SerializationFailure


async def raises(run: Run) -> None:
    await run.effect()
    raise LookupError("secret")


async def rolls_back(run: Run) -> None:
    await run.effect()
    await run.connection.rollback()


async def commits(run: Run) -> None:
    await run.effect()
    with suppress(TransactionMisused):
        await run.connection.commit()


async def commits_by_a_statement(run: Run) -> None:
    await run.effect()
    await run.sql("/* as a habit */ -- and\n Commit Work")


async def ends_its_block_normally(run: Run) -> None:
    async with run.connection:
        await run.effect()


async def rolls_back_and_begins_in_one_string(run: Run) -> None:
    await run.effect()
    with suppress(TransactionMisused):
        await run.sql("ROLLBACK; BEGIN")
    await run.effect()


async def rolls_back_and_begins(run: Run) -> None:
    await run.effect()
    await run.sql("ROLLBACK")
    with suppress(TransactionMisused):
        await run.sql("BEGIN")
        await run.effect()


async def rolls_back_and_chains(run: Run) -> None:
    await run.sql("ROLLBACK /* and */ And\nChain")
    await run.effect()


async def commits_and_chains_in_many_statements(run: Run) -> None:
    await run.sql("SELECT 1; COMMIT AND CHAIN")


async def closes(run: Run) -> None:
    await run.effect()
    await run.connection.close()


async def leaves_its_block(run: Run) -> None:
    with suppress(psycopg.Error):
        async with run.connection:
            raise errors.DivisionByZero


async def leaves_a_statement_running(run: Run) -> None:
    await run.effect()
    copy = run.connection.cursor().copy("COPY (SELECT generate_series(1, 9)) TO STDOUT")
    await copy.__aenter__()
    run.kept.append(copy)


async def leaves_a_savepoint_open(run: Run) -> None:
    block = run.connection.transaction()
    await block.__aenter__()
    await run.effect()
    run.kept.append(block)


async def cancels_its_own_statement(run: Run) -> None:
    await run.effect()
    with anyio.move_on_after(0.01):
        await run.sql("SELECT pg_sleep(60)")


async def changes_the_rows(run: Run) -> None:
    run.connection.row_factory = dict_row
    run.connection.prepare_threshold = 0
    await run.effect()


TABLE: Final[dict[Callable[[Run], Awaitable[None]], str | type[Exception]]] = {
    nothing: OK,
    changes_the_rows: OK,
    undoes_an_error_by_a_savepoint: OK,
    swallows_a_conflict_once: OK,
    hides_a_conflict_once: OK,
    swallows_a_lost_connection_once: "retried",
    loses_the_connection_once: "retried",
    swallows_an_error: errors.DivisionByZero,
    swallows_an_error_and_goes_on: errors.DivisionByZero,
    is_interrupted: errors.QueryCanceled,
    waits_for_a_lock_too_long: errors.LockNotAvailable,
    meets_another_database_that_is_out_of_reach: psycopg.OperationalError,
    raises_a_conflict_of_another_database: errors.SerializationFailure,
    raises: LookupError,
    commits: TransactionMisused,
    commits_by_a_statement: TransactionMisused,
    ends_its_block_normally: TransactionMisused,
    rolls_back: TransactionMisused,
    rolls_back_and_begins_in_one_string: TransactionMisused,
    rolls_back_and_begins: TransactionMisused,
    rolls_back_and_chains: TransactionMisused,
    commits_and_chains_in_many_statements: TransactionMisused,
    closes: TransactionMisused,
    leaves_its_block: TransactionMisused,
    leaves_a_statement_running: TransactionMisused,
    leaves_a_savepoint_open: TransactionMisused,
    cancels_its_own_statement: TransactionMisused,
}
"""What the function did, and the end of its call in every body."""

BODIES: Final = ["transact", "once", "apply", "rebuild"]


class Body:
    """Calls a function in one of the bodies. `runs` counts the calls."""

    def __init__(
        self, url: str, name: str, act: Callable[[Run], Awaitable[None]], calls: int = 1
    ) -> None:
        self.name = name
        self.runs = 0
        self.kept: list[Any] = []
        self.calls = calls
        self._act = act
        self._database = Database(url)
        self._url = url

    async def _run(self, connection: psycopg.AsyncConnection[Any], *_: Message) -> None:
        self.runs += 1
        assert connection.row_factory is tuple_row
        await self._act(Run(connection, self.runs, self.kept))

    async def call(self) -> str:
        """Call the function for one event or message. Returns how the call ended."""
        try:
            with anyio.fail_after(30):
                await getattr(self, f"_{self.name}")()
        except (psycopg.Error, TransactionMisused, LookupError) as error:
            return type(error).__name__
        return self._letter() or OK

    async def _transact(self) -> None:
        async with AsyncWriter(self._database, QUICK) as writer:
            for _ in range(self.calls):
                await writer.transact(lambda transaction: self._run(transaction.connection))

    async def _once(self) -> None:
        async with AsyncInbox(self._database, "mailer") as inbox:
            for n in range(self.calls):
                await inbox.once(str(n), self._run)

    async def _apply(self) -> None:
        settings = PublisherSettings(attempts=1, idle_max=0.02)
        await Publisher(self._database, settings=settings, apply=self._run).run(until_empty=True)

    async def _rebuild(self) -> None:
        await Publisher(self._database, MemorySink()).run(until_empty=True)
        async with Rebuild(self._database, self._run) as tool:
            async for _ in tool.run():
                pass

    def _letter(self) -> str | None:
        """The class in the reason of the dead letter, if there is one."""
        with psycopg.connect(self._url) as sql:
            found = sql.execute("SELECT error FROM outbox.dead_letters").fetchone()
        if found is None:
            return None
        assert "secret" not in found[0]
        return str(found[0].split("raised ")[1].split()[0].rstrip(":"))


@pytest.fixture
def effects(url: str) -> str:
    """A table of effects, and one event that waits."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("DROP TABLE IF EXISTS public.effects")
        sql.execute("CREATE TABLE public.effects (n int)")
    with Writer(Database(url)) as writer:
        writer.write(workload_s.car_created())
    return url


def effects_in(url: str) -> int:
    with psycopg.connect(url) as sql:
        return len(sql.execute("SELECT FROM public.effects").fetchall())


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("act", TABLE, ids=lambda act: act.__name__)
async def test_each_body_judges_the_end_of_the_function_in_the_same_way(
    effects: str, body: str, act: Callable[[Run], Awaitable[None]]
) -> None:
    called, wanted = Body(effects, body, act), TABLE[act]
    if wanted == "retried":  # an operator's tool is not a service: it ends, and is run again
        wanted = psycopg.OperationalError if body == "rebuild" else OK
    ended = await called.call()
    if isinstance(wanted, str):
        assert (ended, effects_in(effects)) == (wanted, 1)
    else:
        found = getattr(errors, ended, None) or getattr(psycopg, ended, None)
        assert ended == wanted.__name__ or (found and issubclass(found, wanted)), ended
        assert (called.runs, effects_in(effects)) == (1, 0)


@pytest.mark.parametrize("body", BODIES)
async def test_a_handle_sends_nothing_after_its_run(effects: str, body: str) -> None:
    """Its session serves another run by then."""
    refused: list[str] = []

    async def act(run: Run) -> None:
        run.kept.append(run.connection)
        await run.effect()
        if run.number == 2:
            old = run.kept[0]
            assert old.closed
            await old.close()
            for late in (lambda: old.execute("SELECT 1"), old.commit, old.rollback):
                with pytest.raises(TransactionMisused, match="has ended: nothing was sent"):
                    await late()
                refused.append("late")

    with Writer(Database(effects)) as writer:
        writer.write(workload_s.loan_created())
    assert await Body(effects, body, act, calls=2).call() == OK
    assert (len(refused), effects_in(effects)) == (3, 2)


@asynccontextmanager
async def open_calls(url: str, body: str) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Calls functions of a connection one after the other, on one session."""
    if body == "transact":
        async with AsyncWriter(Database(url), QUICK) as writer:
            yield lambda _, function: writer.transact(lambda each: function(each.connection))
    else:
        async with AsyncInbox(Database(url), "mailer") as inbox:
            yield inbox.once


@pytest.mark.parametrize("body", ["transact", "once"])
async def test_a_statement_of_a_late_task_is_in_no_other_run(effects: str, body: str) -> None:
    is_over, late = anyio.Event(), list[str]()

    async def insert(run: Run) -> None:
        await is_over.wait()
        with suppress(TransactionMisused):
            await run.effect()
            late.append("sent")

    async with anyio.create_task_group() as tasks, open_calls(effects, body) as call:

        async def first(connection: psycopg.AsyncConnection[Any]) -> None:
            tasks.start_soon(insert, Run(connection, 1, []))

        async def second(connection: psycopg.AsyncConnection[Any]) -> None:
            is_over.set()
            await anyio.wait_all_tasks_blocked()
            await connection.execute("SELECT 1")

        await call("a", first)
        await call("b", second)
    assert (late, effects_in(effects)) == ([], 0)
