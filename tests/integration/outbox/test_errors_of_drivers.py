"""An error of the database means the same on each driver, plain and inside a wrapper."""

import asyncio
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import psycopg
import psycopg_pool
import pytest
from psycopg import sql as composed
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.orm import Session
from tests.support.database_roles import as_role, creation
from tests.support.driver_sessions import (
    DRIVER_SESSIONS,
    Asyncpg,
    DriverSession,
    engine_url,
    without_options,
)
from tests.support.pairs import in_turn
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.checked_tables import Tables

from dsql_outbox.outbox import Database, SchemaError, is_retryable
from dsql_outbox.outbox.failure import (
    CONFLICTS,
    FailureKind,
    answers_commit,
    classify,
    driver_error,
    kind_of,
    refuses_form,
    schema_error,
    sqlstate_of,
    text_of,
)
from dsql_outbox.writer import http_status
from dsql_outbox.writer.statement.answers import stale_version

pytestmark = [
    pytest.mark.client,
    pytest.mark.postgres_only("the sessions of these callers pass the endpoint by"),
]

K = FailureKind
RAISED_STATES = [
    *("OC000", "OC001", "40003", "53100", "53200", "53300", "53400", "57P01", "57P03", "08006"),
    *("XX000", "28000", "54000", "42501", "3F000", "0A000", "58030", "55000", "57P99", "P0001"),
]
RAISED = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{}', MESSAGE = 'of a trigger'; END $$"


PLAIN = ["psycopg", "asyncpg", "psycopg2"]
WRAPPED = [kind for kind in DRIVER_SESSIONS if kind not in PLAIN]
"""An error of theirs holds the one of a driver. Each gets some of the errors."""


@pytest.fixture(params=DRIVER_SESSIONS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a driver and its wrapper."""
    return str(request.param)


class World:
    """A database with tables of the caller, and sessions of one kind."""

    def __init__(self, url: str, tables: Tables, kind: type[DriverSession]) -> None:
        self.url, self.tables, self.kind = url, tables, kind
        self._opened: list[DriverSession] = []
        tables.execute("CREATE TABLE own (n int PRIMARY KEY, v int)")
        tables.execute("CREATE TABLE other (n int)")
        tables.execute("INSERT INTO own VALUES (1, 0), (2, 0)")

    def open(self, url: str | None = None) -> DriverSession:
        """A session."""
        self._opened.append(self.kind(url or self.url))
        return self._opened[-1]

    def close(self) -> None:
        """Close the sessions, whatever they met."""
        for session in self._opened:
            with suppress(Exception):
                session.close()

    @contextmanager
    def another(self, level: str) -> Iterator[psycopg.Connection[Any]]:
        """A transaction of somebody else, which commits at the end."""
        with psycopg.connect(self.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel[level]
            yield connection

    def end_session(self, session: DriverSession) -> None:
        """Let an operator end the session."""
        pid = session.execute("SELECT pg_backend_pid()")
        sessions = f"SELECT pid FROM pg_stat_activity WHERE pid = {int(pid)}"
        self.tables.connection.execute(f"SELECT pg_terminate_backend({int(pid)})".encode())
        wait_until(lambda: not self.tables.connection.execute(sessions.encode()).fetchall())


@pytest.fixture
def world(url: str, tables: Tables, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A database whose outbox is the only one that this process knows."""
    monkeypatch.setattr("dsql_outbox.outbox.failure._SCHEMAS", set())
    Database(url)
    world = World(url, tables, DRIVER_SESSIONS[kind])
    yield world
    world.close()


def raised_by(act: Callable[..., Any], *given: Any) -> Exception:
    """The error of an act."""
    try:
        act(*given)
    except Exception as error:  # noqa: BLE001 - of any driver
        return error
    pytest.fail("nothing was raised")


# --- what goes wrong ---------------------------------------------------------------------


def conflict(world: World) -> Exception:
    session = world.open()
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.execute("SELECT v FROM own WHERE n = 1")
    world.tables.execute("UPDATE own SET v = 1")
    return raised_by(session.execute, "UPDATE own SET v = 2 WHERE n = 1")


def conflict_at_commit(world: World) -> Exception:
    session = world.open()
    session.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    session.execute("SELECT count(*) FROM own")
    with world.another("SERIALIZABLE") as another:
        another.execute("SELECT count(*) FROM other")
        another.execute("INSERT INTO own VALUES (3, 0)")
        session.execute("INSERT INTO other VALUES (1)")
    return raised_by(session.commit)


def deadlock(world: World) -> Exception:
    session = world.open()
    session.execute("SET LOCAL deadlock_timeout = '10ms'")
    session.execute("UPDATE own SET v = 1 WHERE n = 1")
    with world.another("READ_COMMITTED") as another:
        another.execute("SET LOCAL deadlock_timeout = '60s'")
        another.execute("UPDATE own SET v = 1 WHERE n = 2")
        waiting = threading.Thread(
            target=another.execute, args=("UPDATE own SET v = 1 WHERE n = 1",)
        )
        waiting.start()
        wait_until(lambda: world.tables.blocked() == 1)
        error = raised_by(session.execute, "UPDATE own SET v = 1 WHERE n = 2")
        session.close()
        waiting.join()
    return error


def our_key(world: World) -> Exception:
    insert = (
        "INSERT INTO outbox.outbox_targets (name, kind, first_shard, state)"
        " VALUES ('twice', 'sink', 8192, 'running')"
    )
    session = world.open()
    session.execute(insert)
    return raised_by(session.execute, insert)


def key_of_the_caller(world: World) -> Exception:
    return raised_by(world.open().execute, "INSERT INTO own VALUES (1, 0)")


def key_of_a_table_called_like_ours(world: World) -> Exception:
    world.tables.execute("CREATE TABLE public.outbox (n int PRIMARY KEY)")
    return raised_by(world.open().execute, "INSERT INTO public.outbox VALUES (1), (1)")


def missing_table(world: World) -> Exception:
    return raised_by(world.open().execute, "SELECT 1 FROM outbox.absent")


def missing_column(world: World) -> Exception:
    return raised_by(world.open().execute, "SELECT absent FROM outbox.entities")


def killed(world: World) -> Exception:
    session = world.open()
    world.end_session(session)
    return raised_by(session.execute, "SELECT 1")


def killed_before_commit(world: World) -> Exception:
    session = world.open()
    session.execute("INSERT INTO other VALUES (1)")
    world.end_session(session)
    return raised_by(session.commit)


def lost_commit(world: World) -> Exception:
    with PostgresProxy(world.url) as proxy:
        session = world.open(proxy.url)
        session.execute("INSERT INTO other VALUES (1)")
        proxy.cut("after_commit", matching="COMMIT")
        error = raised_by(session.commit)
        world.close()
    assert world.tables.execute("SELECT n FROM other") == [{"n": 1}]
    return error


def refused(world: World) -> Exception:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = urlsplit(world.url)
    url = found._replace(netloc=f"postgres:x@127.0.0.1:{port}").geturl()
    return raised_by(world.open, url)


def wrong_password(world: World) -> Exception:
    with _role(world, "") as url:
        found = urlsplit(url)
        wrong = f"{found.username}:wrong@{found.hostname}:{found.port}"
        return raised_by(world.open, found._replace(netloc=wrong).geturl())


def too_many_connections(world: World) -> Exception:
    with _role(world, "CONNECTION LIMIT 0") as url:
        return raised_by(world.open, url)


def read_only(world: World) -> Exception:
    session = world.open()
    session.execute("SET TRANSACTION READ ONLY")
    return raised_by(session.execute, "INSERT INTO other VALUES (1)")


def statement_timeout(world: World) -> Exception:
    session = world.open()
    session.execute("SET LOCAL statement_timeout = '10ms'")
    return raised_by(session.execute, "SELECT pg_sleep(30)")


def lock_timeout(world: World) -> Exception:
    session = world.open()
    with world.another("READ_COMMITTED") as another:
        another.execute("UPDATE own SET v = 1")
        return raised_by(session.execute, "SELECT v FROM own FOR UPDATE NOWAIT")


def bad_value(world: World) -> Exception:
    session = world.open()
    return raised_by(session.execute, f"SELECT {session.mark}::text", object())


def check_violation(world: World) -> Exception:
    world.tables.execute("ALTER TABLE own ADD CONSTRAINT oc000 CHECK (v < 5)")
    return raised_by(world.open().execute, "UPDATE own SET v = 6")


def trigger_at_commit(world: World) -> Exception:
    world.tables.execute(
        "CREATE FUNCTION ask() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION USING ERRCODE = '08006', MESSAGE = 'the other server is gone'; END $$"
    )
    world.tables.execute(
        "CREATE CONSTRAINT TRIGGER asks AFTER INSERT ON other DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION ask()"
    )
    session = world.open()
    session.execute("INSERT INTO other VALUES (1)")
    return raised_by(session.commit)


@contextmanager
def _role(world: World, options: str) -> Iterator[str]:
    """The URL of a role of its own."""
    role = f"role_{uuid4().hex[:8]}"
    connection = world.tables.connection
    connection.execute(creation(world.url, role))
    name = composed.Identifier(role)
    connection.execute(composed.SQL("ALTER ROLE {} " + options).format(name))  # type: ignore[arg-type]
    yield as_role(world.url, role)
    connection.execute(composed.SQL("DROP ROLE {}").format(name))


class Meaning(NamedTuple):
    """The meaning for a statement that may run twice, and for a write that was sent."""

    kind: FailureKind
    when_sent: FailureKind
    status: int = 503


CASES: dict[Callable[[World], Exception], Meaning] = {
    conflict: Meaning(K.CONFLICT, K.CONFLICT, 500),
    conflict_at_commit: Meaning(K.CONFLICT, K.CONFLICT, 500),
    deadlock: Meaning(K.CONFLICT, K.CONFLICT, 500),
    our_key: Meaning(K.COLLISION, K.COLLISION, 500),
    key_of_the_caller: Meaning(K.KEY_TAKEN, K.KEY_TAKEN, 500),
    key_of_a_table_called_like_ours: Meaning(K.KEY_TAKEN, K.KEY_TAKEN, 500),
    missing_table: Meaning(K.TABLES_MISSING, K.TABLES_MISSING, 500),
    missing_column: Meaning(K.TABLES_OUTDATED, K.TABLES_OUTDATED, 500),
    killed: Meaning(K.OUTAGE, K.IN_DOUBT),
    killed_before_commit: Meaning(K.OUTAGE, K.IN_DOUBT),
    lost_commit: Meaning(K.OUTAGE, K.IN_DOUBT),
    refused: Meaning(K.OUTAGE, K.IN_DOUBT),
    wrong_password: Meaning(K.REFUSED, K.IN_DOUBT, 500),
    too_many_connections: Meaning(K.OUTAGE, K.IN_DOUBT),
    read_only: Meaning(K.READ_ONLY, K.READ_ONLY),
    statement_timeout: Meaning(K.INTERRUPTED, K.INTERRUPTED, 500),
    lock_timeout: Meaning(K.INTERRUPTED, K.INTERRUPTED, 500),
    check_violation: Meaning(K.FATAL, K.FATAL, 500),
    bad_value: Meaning(K.FATAL, K.IN_DOUBT, 500),
    trigger_at_commit: Meaning(K.OUTAGE, K.IN_DOUBT),
}

# libpq gives no SQLSTATE for a connection that was not opened, so psycopg and psycopg2 know less.
# asyncpg has one also for a value that it cannot send.
KNOWN_SENT = {
    (bad_value, "asyncpg"): K.FATAL,
    (bad_value, "sqlalchemy asyncpg"): K.FATAL,
    (wrong_password, "asyncpg"): K.REFUSED,
    (wrong_password, "sqlalchemy asyncpg"): K.REFUSED,
    (too_many_connections, "asyncpg"): K.OUTAGE,
    (too_many_connections, "sqlalchemy asyncpg"): K.OUTAGE,
}


@pytest.mark.parametrize(
    ("kind", "case"),
    in_turn(PLAIN, WRAPPED, [*CASES]),
    indirect=["kind"],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_an_error_means_the_same_on_each_driver(
    world: World, kind: str, case: Callable[[World], Exception]
) -> None:
    meaning = CASES[case]
    error = case(world)
    when_sent = KNOWN_SENT.get((case, kind), meaning.when_sent)
    assert (kind_of(error), classify(error, sent=True).kind) == (meaning.kind, when_sent)
    assert is_retryable(error) is (when_sent in CONFLICTS | {K.OUTAGE})
    assert http_status(error).status == meaning.status
    assert answers_commit(error) is (case is trigger_at_commit)


def test_each_sqlstate_means_what_it_means_on_psycopg(world: World) -> None:
    """As a trigger raises it, when a disk is full or in a session of Aurora DSQL."""
    for sqlstate in RAISED_STATES:
        raises = RAISED.format(sqlstate)
        expected = raised_by(world.tables.connection.execute, raises)
        error = raised_by(world.open().execute, raises)
        assert sqlstate_of(error) == sqlstate
        for sent in (True, False):
            assert classify(error, sent=sent)[0] is classify(expected, sent=sent)[0], sqlstate
        assert is_retryable(error) is is_retryable(expected), sqlstate
        assert refuses_form(error) is refuses_form(expected), sqlstate
        text = text_of(expected)
        assert text_of(error) == text or not text.startswith("of a trigger"), sqlstate


def test_a_missing_table_of_ours_is_a_schema_error_of_the_drivers_error(world: World) -> None:
    error = missing_table(world)
    found = driver_error(error)
    assert found is not None
    named = schema_error(found, "outbox")
    assert isinstance(named, SchemaError)
    if found is not error:  # what a wrapper holds may be about a table of the caller
        assert schema_error(error, "outbox") is None


def test_the_actual_version_is_read_of_the_failing_cast(world: World) -> None:
    event = UUID(int=7)
    error = raised_by(world.open().execute, f"SELECT ('stale {event} ' || 3 + 1)::int")
    assert stale_version(error) == (event, 4)
    other = raised_by(world.open().execute, "SELECT 'stale'::text::int")
    assert stale_version(other) is None


def test_an_outdated_plan_is_no_refusal_of_a_form(world: World, kind: str) -> None:
    session = world.open()
    query = "SELECT * FROM own WHERE n = " + session.mark
    for _ in range(8):  # psycopg prepares what it has sent five times
        session.execute(query, 1)
    session.commit()
    world.tables.execute("ALTER TABLE own ALTER v TYPE bigint")
    if "psycopg2" in kind or kind == "django":  # they prepare nothing
        session.execute(query, 1)
        return
    error = raised_by(session.execute, query, 1)
    assert sqlstate_of(error) == "0A000"
    assert not refuses_form(error)


def test_the_text_for_a_log_line_quotes_no_row(world: World) -> None:
    session = world.open()
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    query = f"SELECT v FROM own WHERE n = {session.mark}"
    session.execute(query, 1)
    world.tables.execute("UPDATE own SET v = 1")
    error = raised_by(session.execute, query.replace("SELECT v", "DELETE"), 1)
    assert text_of(error) == "could not serialize access due to concurrent update"
    assert text_of(our_key(world)) == type(our_key(world)).__name__


# --- what no wrapper and no server says ----------------------------------------------------


def test_a_closed_connection_of_any_driver_is_an_outage(url: str) -> None:
    for name in ("psycopg", "asyncpg", "psycopg2"):
        session = DRIVER_SESSIONS[name](url)
        session.execute("SELECT 1")
        connection: Any = getattr(session, "connection")  # noqa: B009 - of each driver
        if isinstance(session, Asyncpg):
            session.run(connection.close)
        else:
            connection.close()
        error = raised_by(session.execute, "SELECT 1")
        assert kind_of(error) is K.OUTAGE, name
        assert not is_retryable(error), name
        session.close()


def test_a_wrong_use_of_asyncpg_proves_nothing(url: str) -> None:
    async def use_twice() -> list[Any]:
        connection: Any = await asyncpg.connect(without_options(url))
        both = connection.execute("SELECT pg_sleep(0.01)"), connection.execute("SELECT 1")
        errors = await asyncio.gather(*both, return_exceptions=True)
        await connection.close()
        return [error for error in errors if isinstance(error, Exception)]

    (error,) = asyncio.run(use_twice())
    assert isinstance(error, asyncpg.InterfaceError)
    assert (kind_of(error), classify(error, sent=True).kind) == (K.FATAL, K.IN_DOUBT)
    assert http_status(error).status == 500


def test_a_connection_that_asyncpg_cannot_go_on_with_is_an_outage() -> None:
    """As after the FATAL of an operator, before the end of the connection was read."""
    error = asyncpg.InternalClientError("cannot switch to state 15; another operation (2) ..")
    assert (kind_of(error), classify(error, sent=True).kind) == (K.OUTAGE, K.IN_DOUBT)
    assert not is_retryable(error)


def test_types_that_have_changed_are_no_loss_of_the_connection() -> None:
    assert kind_of(asyncpg.OutdatedSchemaCacheError("cached types")) is K.FATAL


def test_a_pool_without_a_free_connection_is_as_a_server_that_is_full(url: str) -> None:
    engine = create_engine(
        engine_url(url, "psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    with engine.connect():
        error = raised_by(engine.connect)
    engine.dispose()
    assert isinstance(error, NoConnectionFree)
    pool = psycopg_pool.ConnectionPool(url, min_size=1, max_size=1, timeout=5)
    with pool, pool.connection():
        of_psycopg = raised_by(lambda: pool.getconn(timeout=0.01))
    for each in (error, of_psycopg):
        assert kind_of(each) is K.OUTAGE
        assert is_retryable(each)
        assert http_status(each).status == 503


def test_a_session_whose_error_was_swallowed_proves_nothing(url: str) -> None:
    """SQLAlchemy does not say which error it was."""
    engine = create_engine(engine_url(url, "psycopg"))
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        session.connection().invalidate()
        error = raised_by(session.execute, text("SELECT 1"))
    engine.dispose()
    assert isinstance(error, PendingRollbackError)
    assert kind_of(error) is K.FATAL
    assert not is_retryable(error)


def test_a_loss_that_only_sqlalchemy_saw_is_an_outage() -> None:
    error = DBAPIError("SELECT 1", {}, RuntimeError("lost"), connection_invalidated=True)
    assert (kind_of(error), classify(error, sent=True).kind) == (K.OUTAGE, K.IN_DOUBT)


def test_an_error_of_asyncpg_that_lost_its_cause_keeps_its_meaning(
    url: str, tables: Tables
) -> None:
    """As one that came from another process."""
    Database(url)
    world = World(url, tables, DRIVER_SESSIONS["sqlalchemy asyncpg"])
    for case, expected in ((conflict, K.CONFLICT), (our_key, K.COLLISION)):
        found: Any = case(world)
        alone = pickle.loads(pickle.dumps(found.orig))
        assert alone.__cause__ is None
        assert kind_of(alone) is expected
    world.close()


@pytest.mark.parametrize("sent", [True, False])
def test_the_parameters_that_a_wrapper_quotes_do_not_decide(*, sent: bool) -> None:
    lost = psycopg.OperationalError("server closed the connection unexpectedly")
    quoted = {"name": "change conflicts with another transaction (OC000)"}
    error = DBAPIError("INSERT ..", quoted, lost)
    assert "OC000" in str(error)
    assert classify(error, sent=sent).kind is (K.IN_DOUBT if sent else K.OUTAGE)
