"""A unit of work of SQLAlchemy on a healthy database: what applies of the engine, and misuse."""

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from aurora_dsql_sqlalchemy import create_dsql_engine
from aurora_dsql_sqlalchemy.psycopg import AuroraDSQLDialect_psycopg
from sqlalchemy import JSON, bindparam, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from tests.support.sqlalchemy_units import OpenDoor, Own, event_of, of_driver, open_door
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import AsyncWriter, Database, SettingsError, TransactionMisused, Writer
from dsql_outbox.doors.sqlalchemy import transact

__all__ = ["open_door", "own"]

UNREACHABLE = Database("host=/nonexistent")


def both(session: Session, append: Any) -> Own:
    session.add(row := Own(n=1))
    append(event_of())
    return row


def test_a_unit_of_work_is_flushed_and_committed_once_without_the_pool_of_the_engine(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    door = open_door(url)
    connects: list[Any] = []
    event.listen(door.engine, "connect", lambda *given: connects.append(given))
    row = door.transact(both)
    assert row.n == 1, "a returned object keeps its attributes"
    assert (own_rows(own), len(ids(own)), connects) == (1, 1, [])


@pytest.mark.parametrize(
    ("misuse", "text"),
    [
        (lambda session: session.commit(), "committed its session.*leave out commit"),
        (lambda session: session.rollback(), "rolled back its session.*raise an exception"),
        (lambda session: session.close(), "rolled back its session"),
        (lambda session: session.begin_nested().session.scalars(text("SELECT 1")), "begin_nested"),
    ],
    ids=["commit", "rollback", "close", "begin_nested"],
)
def test_a_function_that_ends_its_session_stores_nothing(
    open_door: OpenDoor, own: Tables, url: str, misuse: Callable[[Session], Any], text: str
) -> None:
    def function(session: Session, append: Any) -> None:
        session.flush()
        both(session, append)
        session.flush()
        misuse(session)

    with pytest.raises(TransactionMisused, match=text):
        open_door(url).transact(function)
    assert (own_rows(own), ids(own)) == (0, set())


def test_two_phases_are_refused(open_door: OpenDoor, own: Tables, url: str) -> None:
    with pytest.raises(TransactionMisused, match="twophase=False"):
        open_door(url, sessions={"twophase": True}).transact(both)
    assert own_rows(own) == 0


def test_events_execution_options_and_serializers_of_the_engine_apply(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    door = open_door(
        url,
        json_serializer=lambda value: json.dumps(value, default=str),
        json_deserializer=lambda text: json.loads(text, parse_float=Decimal),
        execution_options={"schema_translate_map": {"elsewhere": None}},
    )
    seen: list[str] = []
    event.listen(
        door.engine, "before_cursor_execute", lambda *given: seen.append(given[2]), named=False
    )

    def function(session: Session, append: Any) -> tuple[Any, Any]:
        both(session, append)
        echo = text("SELECT :value").bindparams(bindparam("value", type_=JSON)).columns(value=JSON)
        options = session.connection().get_execution_options()
        return session.scalar(echo, {"value": {"paid": Decimal("9.5"), "rate": 0.5}}), options

    value, options = door.transact(function)
    assert value == {"paid": "9.5", "rate": Decimal("0.5")}
    assert options["schema_translate_map"] == {"elsewhere": None}
    assert any("INSERT INTO own" in statement for statement in seen)
    assert own_rows(own) == 1


def test_the_connection_goes_back_with_the_adapters_that_it_had(url: str) -> None:
    engine = create_engine(of_driver(url), json_deserializer=lambda _: "of the engine")
    with Writer(Database(url)) as writer:
        given = lambda tx: tx.connection.execute("SELECT '1'::json").fetchone()[0]  # noqa: E731
        assert writer.transact(given) == 1
        asked = text("SELECT '1'::json")
        found = transact(writer, sessionmaker(engine), lambda session, _: session.scalar(asked))
        assert found == "of the engine"
        assert writer.transact(given) == 1


def test_a_statement_error_comes_as_sqlalchemy_raises_it(open_door: OpenDoor, url: str) -> None:
    with pytest.raises(DBAPIError, match="no_such_table"):
        open_door(url).transact(lambda session, _: session.execute(text("TABLE no_such_table")))


def test_the_dialect_of_aws_compiles_the_statements(own: Tables, url: str) -> None:
    engine = create_engine(url.replace("postgresql", "auroradsql+psycopg", 1))
    dialects: list[Any] = []

    def function(session: Session, append: Any) -> None:
        both(session, append)
        dialects.append(session.connection().dialect)

    with Writer(Database(url)) as writer:
        transact(writer, sessionmaker(engine), function)
    assert [type(dialect) for dialect in dialects] == [AuroraDSQLDialect_psycopg]
    assert own_rows(own) == 1


def test_an_engine_made_by_the_helper_of_aws_serves_without_connecting_itself(
    own: Tables, url: str
) -> None:
    engine = create_dsql_engine("cluster.dsql.us-east-1.on.aws", "app")
    with Writer(Database(url)) as writer:
        transact(writer, sessionmaker(engine), both)
    assert own_rows(own) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "READ COMMITTED"])
def test_an_engine_of_another_isolation_level_is_refused(
    open_door: OpenDoor, own: Tables, url: str, level: str
) -> None:
    database = Database(url, isolation="repeatable read")
    door = open_door(database, isolation_level=level)
    if level == "REPEATABLE READ":
        door.transact(both)
    else:
        with pytest.raises(SettingsError, match=r"READ COMMITTED.*REPEATABLE READ.*isolation=\.\."):
            door.transact(both)
    assert own_rows(own) == (level == "REPEATABLE READ")


@pytest.mark.parametrize(
    "options",
    [{"isolation_level": "AUTOCOMMIT"}, {"execution_options": {"isolation_level": "AUTOCOMMIT"}}],
    ids=["engine", "option"],
)
def test_autocommit_is_refused_before_anything_is_sent(
    open_door: OpenDoor, options: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=r"isolation_level"):
        open_door(UNREACHABLE, **options).transact(both)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: sessionmaker(create_engine("postgresql+psycopg2://")),
            "not psycopg2: create_engin",
        ),
        (lambda: sessionmaker(create_engine("sqlite://")), "not pysqlite"),
        (sessionmaker, "an engine, not NoneType: sessionmaker(create_engine("),
        (lambda: sessionmaker(binds={Own: create_engine("sqlite://")}), "one engine"),
        (lambda: create_engine("sqlite://"), "a sessionmaker, not Engine: sessionmaker(engine)"),
        (async_sessionmaker, "a sessionmaker, not async_sessionmaker"),
    ],
)
def test_another_sessionmaker_is_refused(make: Callable[[], Any], text: str) -> None:
    with Writer(UNREACHABLE) as writer, pytest.raises(TypeError) as raised:
        transact(writer, make(), both)
    assert text in str(raised.value)


def test_another_async_sessionmaker_is_refused() -> None:
    writer: Any = AsyncWriter(UNREACHABLE)
    engine = create_async_engine("postgresql+asyncpg://")
    for sessions, text_ in (
        (async_sessionmaker(engine), "not asyncpg"),
        (sessionmaker(engine), "takes a async_sessionmaker, not sessionmaker"),
    ):
        with pytest.raises(TypeError, match=text_):
            asyncio.run(transact(writer, sessions, both))


def test_another_writer_is_refused() -> None:
    with pytest.raises(TypeError, match="takes a Writer or AsyncWriter, not Database"):
        transact(UNREACHABLE, sessionmaker(), both)  # type: ignore[call-overload]
