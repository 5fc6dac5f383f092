"""An event that was appended and then undone, and a transaction that is not the run's any more."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker
from tests.support.pairs import in_turn
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database, Event, OutcomeUnknown, TransactionMisused
from dsql_outbox.writer import AsyncTransaction, AsyncWriter, Transaction, Writer, transact

__all__ = ["own"]

pytestmark = pytest.mark.postgres_only("DSQL has no savepoints")

BEGIN: Final = b"SAVEPOINT mine"
UNDO: Final = b"ROLLBACK TO SAVEPOINT mine"
ROW: Final = b"INSERT INTO own VALUES (1)"


class Failed(Exception):
    """What a block raises to undo itself."""


Statement = Callable[[Any, bytes], object]
Way = Callable[[Any, Callable[[], object]], None]
"""Runs the second argument on a connection, and undoes it."""


def by_execute(connection: Any, query: bytes) -> None:
    connection.execute(query)


def by_cursor(connection: Any, query: bytes) -> None:
    connection.cursor().execute(query)


def by_stream(connection: Any, query: bytes) -> None:
    with suppress(psycopg.ProgrammingError):  # it returns no rows, and has run
        list(connection.cursor().stream(query))


def by_executemany(connection: Any, query: bytes) -> None:
    connection.cursor().executemany(query, [()])


def by_cursor_of_the_driver(connection: Any, query: bytes) -> None:
    psycopg.Cursor(connection).execute(query)


def by_client_cursor(connection: Any, query: bytes) -> None:
    psycopg.ClientCursor(connection).execute(query)


def by_raw_cursor(connection: Any, query: bytes) -> None:
    psycopg.RawCursor(connection).execute(query)


def by_cursor_factory(connection: Any, query: bytes) -> None:
    connection.cursor_factory = psycopg.ClientCursor
    connection.execute(query)


def by_libpq(connection: Any, query: bytes) -> None:
    connection.pgconn.exec_(query)


def by_pipeline(connection: Any, query: bytes) -> None:
    with connection.pipeline():
        connection.execute(query)


def behind_another(connection: Any, query: bytes) -> None:
    connection.execute(b"SELECT 1; " + query)


def in_a_comment(connection: Any, query: bytes) -> None:
    connection.execute(query.replace(b" ", b"/* point */"))


def in_small_letters(connection: Any, query: bytes) -> None:
    connection.execute(query.lower().replace(b" ", b"\n--\n"))


STATEMENTS: Final[list[Statement]] = [
    by_execute,
    by_cursor,
    by_stream,
    by_executemany,
    by_cursor_of_the_driver,
    by_client_cursor,
    by_raw_cursor,
    by_cursor_factory,
    by_libpq,
    by_pipeline,
    behind_another,
    in_a_comment,
    in_small_letters,
]


def undo_by(statement: Statement, connection: Any, work: Callable[[], object]) -> None:
    statement(connection, BEGIN)
    work()
    statement(connection, UNDO)


def undo_by_an_error(connection: Any, work: Callable[[], object]) -> None:
    with suppress(Failed), connection.transaction():
        work()
        raise Failed


def undo_by_the_block(connection: Any, work: Callable[[], object]) -> None:
    with connection.transaction(force_rollback=True):
        work()


WAYS: Final[dict[str, Way]] = {
    **{each.__name__: partial(undo_by, each) for each in STATEMENTS},
    "by_an_error_in_a_block": undo_by_an_error,
    "by_a_block": undo_by_the_block,
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def undo(request: pytest.FixtureRequest) -> Way:
    """One of the ways to undo what was done since a savepoint."""
    return request.param  # type: ignore[no-any-return]


def appends_and_undoes(undo: Way, transaction: Transaction) -> None:
    connection = transaction.connection
    transaction.append(workload_s.car_created("CAR-1"))
    connection.execute(ROW)
    undo(connection, lambda: transaction.append(workload_s.car_created("CAR-2")))


def test_an_event_that_was_undone_fails_the_call(undo: Way, url: str, own: Tables) -> None:
    """What is not an event may be undone, and an event that is appended again."""

    def undoes_a_row(transaction: Transaction) -> None:
        undo(transaction.connection, lambda: transaction.connection.execute(ROW))
        transaction.append(workload_s.car_created())

    def appends_again(transaction: Transaction) -> None:
        event = workload_s.car_created()
        undo(transaction.connection, lambda: transaction.append(event))
        transaction.append(event)

    with Writer(Database(url), formed(QUICK)) as writer:
        with pytest.raises(TransactionMisused, match="1 of 2 events"):
            writer.transact(partial(appends_and_undoes, undo))
        assert (own_rows(own), ids(own)) == (0, set())
        writer.transact(undoes_a_row)
        assert (own_rows(own), len(ids(own))) == (0, 1)
        writer.transact(appends_again)
    assert len(ids(own)) == 2


@pytest.mark.parametrize(
    ("undo", "where"),
    in_turn(
        [WAYS["by_execute"]],
        [*WAYS.values()][1:],
        ["before", "after_sent", "after_commit", "mid_answer"],
    ),
    indirect=["undo"],
)
def test_nothing_happens_twice_if_the_answer_is_lost(
    undo: Way, proxy: PostgresProxy, own: Tables, where: Any
) -> None:
    """As a function that undoes its event in one run of several: each run is refused or alone."""
    runs: list[int] = []

    def function(transaction: Transaction) -> None:
        runs.append(1)
        transaction.connection.execute(ROW)
        event = Event.new("CarCreated", workload_s.car_created().entities)
        undo(transaction.connection, lambda: transaction.append(event))
        if len(runs) == 1:
            proxy.cut(where, matching="COMMIT")

    with (
        Writer(Database(proxy.url), formed(QUICK)) as writer,
        pytest.raises((TransactionMisused, OutcomeUnknown)),
    ):
        writer.transact(function)
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.parametrize("where", ["before", "after_sent"])
def test_a_part_that_the_function_committed_is_no_receipt_if_the_answer_is_lost(
    proxy: PostgresProxy, own: Tables, where: Any
) -> None:
    """The first event proves which run was committed, and not that all of the run was."""
    first, second = workload_s.car_created("CAR-1"), workload_s.car_created("CAR-2")

    def function(transaction: Transaction) -> None:
        transaction.append(first)
        behind_another(transaction.connection, b"COMMIT AND CHAIN")
        transaction.append(second)
        proxy.cut(where, matching="COMMIT")

    with (
        Writer(Database(proxy.url), formed(QUICK)) as writer,
        pytest.raises(TransactionMisused, match="what it committed itself is stored"),
    ):
        writer.transact(function)
    assert ids(own) == {first.id}


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["execute", "stream", "factory", "client", "raw", "block"])
async def test_an_event_that_was_undone_fails_the_call_of_a_task(
    url: str, own: Tables, way: str
) -> None:
    async def run(connection: Any, query: bytes) -> None:
        match way:
            case "execute":
                await connection.execute(query)
            case "stream":
                with suppress(psycopg.ProgrammingError):
                    async for _ in connection.cursor().stream(query):
                        pass
            case "factory":
                connection.cursor_factory = psycopg.AsyncClientCursor
                await connection.execute(query)
            case "client":
                await psycopg.AsyncClientCursor(connection).execute(query)
            case _:
                await psycopg.AsyncRawCursor(connection).execute(query)

    async def function(transaction: AsyncTransaction) -> None:
        connection = transaction.connection
        await connection.execute(ROW)
        if way == "block":
            async with connection.transaction(force_rollback=True):
                await transaction.append(workload_s.car_created())
            return
        await run(connection, BEGIN)
        await transaction.append(workload_s.car_created())
        await run(connection, UNDO)

    async with AsyncWriter(Database(url), formed(QUICK)) as writer:
        with pytest.raises(TransactionMisused, match="0 of 1 event"):
            await writer.transact(function)
    assert (own_rows(own), ids(own)) == (0, set())


ENDS: Final = [
    "COMMIT AND CHAIN",
    "SELECT 1; COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SELECT 1; COMMIT; BEGIN",
    "ROLLBACK; BEGIN",
    "ROLLBACK; START TRANSACTION; SELECT 1",
]


@pytest.mark.pairs
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("statement", [by_execute, by_client_cursor, by_libpq])
@pytest.mark.parametrize("has_event", [True, False])
@pytest.mark.parametrize("body", ["transact", "once"])
def test_a_transaction_that_is_not_the_runs_fails_the_call(
    url: str, own: Tables, end: str, statement: Statement, has_event: bool, body: str
) -> None:
    """Whatever sent it. What was committed before by the function itself is the function's."""

    def function(connection: Any, append: Callable[[], object]) -> None:
        if has_event and not end.startswith(("COMMIT", "SELECT")):
            append()
        statement(connection, end.encode())
        connection.execute(ROW)

    def run(transaction: Transaction) -> None:
        event = workload_s.car_created()
        function(transaction.connection, partial(transaction.append, event))

    with Writer(Database(url), formed(QUICK)) as writer, Inbox(Database(url), "consumer") as inbox:
        bodies: dict[str, Callable[[], object]] = {
            "transact": lambda: writer.transact(run),
            "once": lambda: inbox.once("1", lambda mine: function(mine, lambda: None)),
        }
        with pytest.raises(TransactionMisused, match=f"given to {body} has ended the transaction"):
            bodies[body]()
    assert (own_rows(own), ids(own)) == (0, set())


@pytest.mark.parametrize("kind", ["transact", "pool", "engine"])
def test_a_function_that_resets_all_settings_is_told_what_it_did(
    url: str, own: Tables, kind: str
) -> None:
    """It has committed nothing, and no other transaction has begun."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    def function(session: Any) -> None:
        connection = session.connection if kind == "transact" else session
        connection.execute(text("RESET ALL") if kind == "engine" else "RESET ALL")
        writer.append_to(connection, workload_s.car_created())

    with (
        Writer(Database(url), formed(QUICK)) as writer,
        ConnectionPool(url, min_size=1, max_size=1) as pool,
    ):
        calls: dict[str, Callable[[], object]] = {
            "transact": lambda: writer.transact(function),
            "pool": lambda: transact(writer, pool, function),
            "engine": lambda: transact(writer, sessionmaker(engine), function),
        }
        with pytest.raises(TransactionMisused, match="RESET ALL"):
            calls[kind]()
    engine.dispose()
    assert ids(own) == set()


HONEST: Final = [
    "stop; end of the supply chain",
    "COMMIT; savepoint; ROLLBACK AND CHAIN",
    "ROLLBACK TO; BEGIN",
]


@pytest.mark.parametrize("words", HONEST)
def test_words_of_a_text_are_no_statements(url: str, own: Tables, words: str) -> None:
    def function(transaction: Transaction) -> None:
        transaction.connection.execute(f"INSERT INTO own SELECT 1 WHERE '{words}' <> ''".encode())
        transaction.append(workload_s.car_created())

    with Writer(Database(url), formed(QUICK)) as writer:
        writer.transact(function)
    assert (own_rows(own), len(ids(own))) == (1, 1)


def change(*texts: str) -> Callable[[Any], None]:
    def run(connection: Any) -> None:
        for each in texts:
            connection.execute(each.encode())

    return run


def with_other_rows(connection: Any) -> None:
    connection.row_factory = psycopg.rows.dict_row
    connection.adapters.register_loader("int4", psycopg.types.string.TextLoader)


SETTINGS: Final[dict[str, Callable[[Any], None]]] = {
    "path": change(
        "CREATE SCHEMA IF NOT EXISTS mine",
        "CREATE TABLE IF NOT EXISTS mine.business_events (id int)",
        "SET LOCAL search_path = mine",
    ),
    "no path": change("SET LOCAL search_path = ''"),
    "encoding": change("SET LOCAL client_encoding = 'LATIN1'"),
    "strings": change("SET LOCAL standard_conforming_strings = off"),
    "quotes": change("SET LOCAL backslash_quote = off", "SET LOCAL escape_string_warning = on"),
    "plans": change("SET LOCAL enable_indexscan = off", "SET LOCAL enable_seqscan = off"),
    "read only": change("SET TRANSACTION READ ONLY"),
    "output": change("SET LOCAL bytea_output = 'escape'", "SET LOCAL datestyle = 'German'"),
    "rows": with_other_rows,
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_settings_of_the_caller_change_no_outcome(
    url: str, own: Tables, settings: Callable[[Any], None]
) -> None:
    def keeps(transaction: Transaction) -> None:
        transaction.append(workload_s.car_created())
        settings(transaction.connection)

    def loses(transaction: Transaction) -> None:
        undo_by_the_block(
            transaction.connection, lambda: transaction.append(workload_s.car_created())
        )
        settings(transaction.connection)

    odd = "it's \\ {öäü} \U0001f600"
    with Writer(Database(url), formed(QUICK)) as writer, Inbox(Database(url), "consumer") as inbox:
        writer.transact(keeps)
        with pytest.raises(TransactionMisused):
            writer.transact(loses)
        assert inbox.once(odd, settings).ran
        assert not inbox.once(odd, settings).ran
    assert len(ids(own)) == 1
