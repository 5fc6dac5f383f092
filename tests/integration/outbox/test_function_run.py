"""What the user's function may do to our transaction: one table for every body that calls one."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from inspect import isawaitable
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from tests.support.driver_sessions import engine_url
from tests.support.publisher.running_relays import only_model
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables

from dsql_outbox.inbox import AsyncInbox, Inbox
from dsql_outbox.outbox import Database, Message, TransactionMisused
from dsql_outbox.outbox.database.exchange import script
from dsql_outbox.outbox.failure import sqlstate_of
from dsql_outbox.outbox.unit_of_work import commit as commit_module
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.writer import AsyncWriter, Writer, transact

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("pg_terminate_backend, DO, COPY")]

T = TypeVar("T")

OK: Final = "committed"

_RAISE: Final = "DO $$ BEGIN RAISE EXCEPTION 'secret' USING errcode = '{}'; END $$"


class Run(NamedTuple):
    """One run of the function: its connection, its number from 1, and a place to keep things."""

    connection: Any
    number: int
    kept: list[Any]

    async def effect(self, n: int = 1) -> None:
        """Change the read model."""
        await self.sql(f"INSERT INTO public.effects VALUES ({n})")

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


async def leaves_a_pipeline_open(run: Run) -> None:
    await run.effect()
    pipeline = run.connection.pipeline()
    await pipeline.__aenter__()
    run.kept.append(pipeline)


async def leaves_a_savepoint_open(run: Run) -> None:
    block = run.connection.transaction()
    await block.__aenter__()
    await run.effect()
    run.kept.append(block)


async def cancels_its_own_statement(run: Run) -> None:
    await run.effect()
    with anyio.move_on_after(0.01):
        await run.sql("SELECT pg_sleep(60)")


async def breaks_a_deferred_constraint(run: Run) -> None:
    await run.effect(7)
    await run.effect(7)


async def fails_a_statement_below_the_driver(run: Run) -> None:
    await run.effect()
    run.connection.pgconn.exec_(b"SELECT 1/0")


async def wants_another_mode_of_the_connection(run: Run) -> None:
    connection = run.connection
    for change in (connection.set_autocommit, connection.set_read_only):
        with suppress(psycopg.ProgrammingError):
            await change(True)
    await run.effect()


async def changes_the_rows(run: Run) -> None:
    run.connection.row_factory = dict_row
    run.connection.prepare_threshold = 0
    await run.effect()


Act = Callable[[Run], Coroutine[Any, Any, None]]

TABLE: Final[dict[Act, str | type[Exception]]] = {
    nothing: OK,
    changes_the_rows: OK,
    wants_another_mode_of_the_connection: OK,
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
    leaves_a_pipeline_open: TransactionMisused,
    leaves_a_savepoint_open: TransactionMisused,
    cancels_its_own_statement: TransactionMisused,
    fails_a_statement_below_the_driver: TransactionMisused,
    breaks_a_deferred_constraint: errors.UniqueViolation,
}
"""What the function did, and the end of its call in every body."""

OF_TASKS: Final = {cancels_its_own_statement}
"""The acts that need a task: a thread cannot be cancelled."""

OF_DRIVERS: Final = {
    changes_the_rows,
    wants_another_mode_of_the_connection,
    undoes_an_error_by_a_savepoint,
    ends_its_block_normally,
    leaves_its_block,
    leaves_a_statement_running,
    leaves_a_pipeline_open,
    leaves_a_savepoint_open,
    fails_a_statement_below_the_driver,
}
"""The acts that a session of SQLAlchemy does not offer, or refuses in tests of its own."""

SESSIONS: Final = {
    "session": "psycopg",
    "session of psycopg2": "psycopg2",
    "session of asyncpg": "asyncpg",
    "session of psycopg's tasks": "psycopg",
}
"""The drivers of sessions of SQLAlchemy. The last two are AsyncSessions."""

OF_MANY_STATEMENTS: Final = {
    rolls_back_and_begins_in_one_string,
    commits_and_chains_in_many_statements,
}
"""The acts that send several statements in one text, which asyncpg refuses in a session."""

BODIES: Final = [
    *("transact", "transact_in_thread", *SESSIONS, "pool", "pool_in_thread"),
    *("once", "once_in_thread", "apply"),
]


class InThread:
    """A synchronous connection, or a session, with the methods of an asynchronous one."""

    def __init__(self, of: Any) -> None:
        object.__setattr__(self, "_of", of)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if name in {"execute", "commit", "rollback", "close"} or name.startswith("set_"):
            return partial(_at_once, found)
        if name in {"transaction", "cursor", "copy", "pipeline"}:
            return lambda *args: InThread(found(*args))
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._of, name, value)

    async def __aenter__(self) -> Any:
        return InThread(self._of.__enter__())

    async def __aexit__(self, *error: object) -> Any:
        return self._of.__exit__(*error)


class OfSession(InThread):
    """A session of SQLAlchemy, whose statements are texts."""

    async def execute(self, query: bytes) -> None:
        """Run a statement."""
        ran = self._of.execute(text(query.decode().replace(":", "\\:")))
        if isawaitable(ran):
            await ran


async def _at_once(function: Callable[..., T], *args: Any) -> T:
    ended: Any = function(*args)
    return await ended if isawaitable(ended) else ended


async def _back(stats: Callable[[], dict[str, int]]) -> None:
    """Wait until the pool has its only connection, or another one for it."""
    await anyio.to_thread.run_sync(wait_until, lambda: stats()["pool_available"] == 1)


def in_thread(act: Coroutine[Any, Any, None]) -> None:
    """Run an act that waits for nothing."""
    with suppress(StopIteration):
        act.send(None)
        raise AssertionError("the act waits for a task")


class Body:
    """Calls a function in one of the bodies. `runs` counts the calls."""

    def __init__(self, url: str, name: str, calls: int = 1) -> None:
        self.name = name
        self.calls = calls
        self.runs = 0
        self.kept: list[Any] = []
        self.told = ""
        self.act: Act = nothing
        self._database = Database(url)
        self._url = url
        self._messages = count()
        self._first: tuple[Any, ...] | None = None

    async def _run(self, connection: Any, *_: Message) -> None:
        self._begin(connection)
        await self.act(Run(connection, self.runs, self.kept))

    def _run_in_thread(self, connection: Any) -> None:
        self._begin(connection)
        in_thread(self.act(Run(InThread(connection), self.runs, self.kept)))

    async def _run_in_session(self, session: Any) -> None:
        self.runs += 1
        await self.act(Run(OfSession(session), self.runs, self.kept))

    def _begin(self, connection: Any) -> None:
        self.runs += 1
        attributes = ("row_factory", "autocommit", "read_only", "prepare_threshold")
        found = tuple(getattr(connection, each) for each in attributes)
        self._first = self._first or found
        assert found == self._first, "an earlier run has left its mark"

    async def call(self, act: Act) -> str:
        """Call the function for one event or message. Returns how the call ended."""
        self.act, self.runs = act, 0
        try:
            with anyio.fail_after(30):
                await (
                    self._session() if self.name in SESSIONS else getattr(self, f"_{self.name}")()
                )
        except (psycopg.Error, DBAPIError, TransactionMisused, LookupError) as error:
            self.told = str(getattr(error, "__notes__", ""))
            state = sqlstate_of(error)
            return (errors.lookup(state) if state else type(error)).__name__
        return self._letter() or OK

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Body"]:
        """Open what calls the function."""
        if self.name == "apply":
            await only_model(self._database)
        async with (
            AsyncWriter(self._database, QUICK) as self._tasks,
            AsyncInbox(self._database, "tasks") as self._inbox,
        ):
            with (
                Writer(self._database, QUICK) as self._threads,
                Inbox(self._database, "threads") as self._thread_inbox,
            ):
                yield self

    async def _transact(self) -> None:
        for _ in range(self.calls):
            await self._tasks.transact(lambda transaction: self._run(transaction.connection))

    async def _transact_in_thread(self) -> None:
        for _ in range(self.calls):
            self._threads.transact(lambda each: self._run_in_thread(each.connection))

    async def _session(self) -> None:
        url = engine_url(self._url, SESSIONS[self.name])
        pool: Any
        if self.name in list(SESSIONS)[2:]:
            tasks = create_async_engine(url)
            pool = tasks.pool
            try:
                await transact(self._tasks, async_sessionmaker(tasks), self._run_in_session)
            finally:
                assert pool.checkedout() == 0
                await tasks.dispose()
        else:
            engine = create_engine(url)
            pool = engine.pool
            try:
                transact(
                    self._threads,
                    sessionmaker(engine),
                    lambda session: in_thread(self._run_in_session(session)),
                )
            finally:
                assert pool.checkedout() == 0
                engine.dispose()

    async def _pool(self) -> None:
        async with AsyncConnectionPool(self._url, min_size=1, max_size=1) as pool:
            for _ in range(self.calls):
                await transact(self._tasks, pool, self._run)
            await _back(pool.get_stats)

    async def _pool_in_thread(self) -> None:
        with ConnectionPool(self._url, min_size=1, max_size=1) as pool:
            for _ in range(self.calls):
                transact(self._threads, pool, self._run_in_thread)
            await _back(pool.get_stats)

    async def _once(self) -> None:
        for _ in range(self.calls):
            await self._inbox.once(str(next(self._messages)), self._run)

    async def _once_in_thread(self) -> None:
        for _ in range(self.calls):
            self._thread_inbox.once(str(next(self._messages)), self._run_in_thread)

    async def _apply(self) -> None:
        for _ in range(self.calls):
            self._threads.write(workload_s.car_created())
        settings = PublisherSettings(attempts=1, idle_max=0.02)
        publisher = Publisher(self._database, settings=settings, apply=self._run, target="model")
        await publisher.run(until_empty=True)

    def _letter(self) -> str | None:
        """The class in the reason of the dead letter, if there is one."""
        with psycopg.connect(self._url) as sql:
            found = sql.execute("DELETE FROM outbox.dead_letters RETURNING error").fetchone()
        if found is None:
            return None
        assert "secret" not in found[0]
        return str(found[0].split("raised ")[1].split()[0].rstrip(":"))


@pytest.fixture
def effects(tables: Tables) -> Callable[[], int]:
    """How many effects there are, in a table of their own. They are gone then."""
    tables.execute("DROP TABLE IF EXISTS public.effects")
    tables.execute(
        "CREATE TABLE public.effects (n int, is_once int GENERATED ALWAYS AS"
        " (nullif(n, 1)) STORED UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    )
    return lambda: tables.connection.execute("DELETE FROM public.effects").rowcount


def wanted_of(act: Act) -> tuple[str, int]:
    """The end of a call, and the effects that are stored."""
    wanted = OK if TABLE[act] == "retried" else TABLE[act]
    return (OK, 1) if wanted == OK else (_named(wanted), 0)


def _named(kind: Any) -> str:
    return str(kind.__name__)


def _is(ended: str, wanted: str) -> bool:
    """Whether an error is the wanted one, or a kind of it."""
    found, base = (
        getattr(errors, each, None) or getattr(psycopg, each, None) for each in (ended, wanted)
    )
    return ended == wanted or bool(found and base and issubclass(found, base))


@pytest.mark.parametrize("name", BODIES)
async def test_each_body_judges_the_end_of_the_function_in_the_same_way(
    url: str, effects: Callable[[], int], name: str
) -> None:
    """Every act, one after the other, on the same connections: none leaves a mark for the next."""
    left_out: set[Act] = OF_TASKS if name.endswith("_in_thread") else set()
    if name in SESSIONS:
        left_out = OF_DRIVERS if name in list(SESSIONS)[2:] else OF_TASKS | OF_DRIVERS
        if SESSIONS[name] == "asyncpg":
            left_out = left_out | OF_MANY_STATEMENTS
    if name == "apply":  # it commits that the message is handled
        left_out = {commits_and_chains_in_many_statements}
    wrong = {}
    async with Body(url, name).opened() as body:
        for act in TABLE:
            if act in left_out:
                continue
            found = (await body.call(act), effects())
            wanted = wanted_of(act)
            is_right = _is(found[0], wanted[0]) and found[1] == wanted[1]
            if not is_right or (wanted[1] == 0 and body.runs != 1):
                wrong[act.__name__] = (found, body.runs, wanted)
            if act is swallows_an_error and name not in {"apply", *SESSIONS}:
                assert "continued" in body.told, "the error does not say who swallowed it"
    assert wrong == {}


@pytest.mark.parametrize("name", [body for body in BODIES if body not in SESSIONS])
async def test_a_commit_that_the_server_answers_with_rollback_stores_nothing(
    url: str, effects: Callable[[], int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so for an aborted transaction, and reports no error.

    In a session, whose driver reads no such answer, the guard fails before.
    """

    def send(connection: Any, text: bytes) -> Any:
        return script(connection, text.replace(b"COMMIT", b"ROLLBACK"))

    async with Body(url, name).opened() as body:
        monkeypatch.setattr(commit_module, "script", send)
        assert (await body.call(nothing), body.runs) == ("TransactionRollback", 1)
    assert effects() == 0


@pytest.mark.parametrize("name", [body for body in BODIES if body not in SESSIONS])
async def test_a_handle_sends_nothing_after_its_run(
    url: str, effects: Callable[[], int], name: str
) -> None:
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

    async with Body(url, name, calls=2).opened() as body:
        assert await body.call(act) == OK
    assert (len(refused), effects()) == (3, 2)


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
async def test_a_statement_of_a_late_task_is_in_no_other_run(
    url: str, effects: Callable[[], int], body: str
) -> None:
    is_over, late = anyio.Event(), list[str]()

    async def insert(run: Run) -> None:
        await is_over.wait()
        with suppress(TransactionMisused):
            await run.effect()
            late.append("sent")

    async with anyio.create_task_group() as tasks, open_calls(url, body) as call:

        async def first(connection: psycopg.AsyncConnection[Any]) -> None:
            tasks.start_soon(insert, Run(connection, 1, []))

        async def second(connection: psycopg.AsyncConnection[Any]) -> None:
            is_over.set()
            await anyio.wait_all_tasks_blocked()
            await connection.execute("SELECT 1")

        await call("a", first)
        await call("b", second)
    assert (late, effects()) == ([], 0)
