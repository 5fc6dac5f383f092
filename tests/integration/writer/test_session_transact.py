"""`transact` in a session of SQLAlchemy on a healthy database: what applies of the engine."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import JSON, bindparam, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool
from tests.support.driver_sessions import engine_url
from tests.support.pairs import in_turn
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Running
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import (
    DRIVERS,
    OpenDoor,
    Own,
    driver,
    new_event,
    open_door,
)
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import (
    AsyncWriter,
    Database,
    DuplicateEvent,
    Entity,
    Event,
    InvalidEvent,
    OutboxError,
    Receipt,
    StaleVersion,
    TransactionMisused,
    Writer,
    transact,
)

__all__ = ["driver", "open_door", "own"]

pytestmark = pytest.mark.postgres_only("the sessions of these callers pass the endpoint by")

UNDO = text("ROLLBACK AND CHAIN")


def both(session: Session, append: Any) -> Own:
    session.add(row := Own(n=1))
    append(new_event())
    return row


def test_a_unit_of_work_is_flushed_and_committed_once_on_the_pool_of_the_engine(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    door = open_door(url)
    connects: list[Any] = []
    event.listen(door.engine, "connect", lambda *given: connects.append(given))
    for runs in (1, 2):
        row = door.transact(both)
        assert row.n == 1, "a returned object keeps its attributes"
        assert (own_rows(own), len(ids(own)), len(connects)) == (runs, runs, 1)


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_any_pool_serves(open_door: OpenDoor, own: Tables, url: str, pool: type[Any]) -> None:
    door = open_door(url, poolclass=pool, pool_reset_on_return=None)
    door.transact(both)
    with pytest.raises(ZeroDivisionError):
        door.transact(lambda session, append: (both(session, append), session.flush(), 1 / 0))
    door.transact(both)
    assert (own_rows(own), len(ids(own))) == (2, 2)


@pytest.mark.parametrize(
    ("driver", "kind"),
    in_turn(DRIVERS[:1], DRIVERS[1:], ["invalid", "stale", "stored"]),
    indirect=["driver"],
)
def test_a_savepoint_takes_no_error_of_an_append_with_it(
    open_door: OpenDoor, own: Tables, url: str, kind: str
) -> None:
    """A row without its event would be committed."""
    door = open_door(url)
    stored = door.transact(lambda _, append: append(new_event())).event_id
    errors: dict[str, type[Exception]] = {
        "invalid": InvalidEvent,
        "stale": StaleVersion,
        "stored": DuplicateEvent,
    }
    event_id = stored if kind == "stored" else uuid4()
    options = {"expected_version": 7} if kind == "stale" else {}

    def function(session: Session, append: Any) -> str:
        session.add(Own(n=3))
        session.flush()
        entities = [] if kind == "invalid" else [Entity("Car", "CAR-3")]
        event = Event.new("CarSold", entities, id=event_id)
        with suppress(OutboxError, DBAPIError), session.begin_nested():
            append(event, **options)
        return "stored nothing"

    with pytest.raises(errors[kind]):
        door.transact(function)
    assert (own_rows(own), ids(own)) == (0, {stored})


@pytest.mark.usefixtures("own")
def test_the_mark_is_the_first_statement_and_the_guard_the_last(
    open_door: OpenDoor, proxy: PostgresProxy
) -> None:
    """Also behind what a hook of the session sends at its commit."""

    def hook(session: Session) -> None:
        session.execute(text("SELECT 'of a hook'"))

    def function(session: Session, append: Any) -> None:
        event.listen(session, "before_commit", hook)
        both(session, append)

    open_door(proxy.url).transact(function)
    sent = [
        sql for sql in proxy.statements if "outbox" in sql or "own" in sql or "of a hook" in sql
    ]
    assert "set_config('dsql_outbox.run'" in sent[0]
    assert ["of a hook" in sql for sql in sent[-2:]] == [True, False]
    assert "AS kept" in sent[-1]


def test_a_run_takes_two_round_trips_more_than_a_session_of_its_own(
    open_door: OpenDoor, own: Tables, proxy: PostgresProxy
) -> None:
    def round_trips(act: Callable[[], object]) -> int:
        for _ in range(7):  # until the drivers have prepared what they prepare
            before = proxy.round_trips
            act()
        return proxy.round_trips - before

    door = open_door(proxy.url)
    taken = round_trips(lambda: door.transact(both)) - round_trips(lambda: door.alone(both))
    assert (taken, own_rows(own)) == (2, 14)


def test_append_to_finds_the_run_by_the_connection_of_its_session_too(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    def function(session: Session, append: Any) -> None:
        event = new_event()
        append.on(session.connection(), event)
        append(event)

    with pytest.raises(TransactionMisused, match="twice"):
        open_door(url).transact(function)
    assert ids(own) == set()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("driver", "name"),
    in_turn(DRIVERS[:1], DRIVERS[1:], ["commit", "rollback", "savepoint", "release_savepoint"]),
    indirect=["driver"],
)
def test_the_events_of_the_engine_happen(open_door: OpenDoor, url: str, name: str) -> None:
    door = open_door(url)
    seen: list[str] = []
    event.listen(door.engine, name, lambda *_: seen.append(name))

    def function(session: Session, append: Any) -> None:
        with session.begin_nested():
            session.add(Own(n=1))
        both(session, append)
        if name == "rollback":
            raise LookupError

    if name == "rollback":
        with pytest.raises(LookupError):
            door.transact(function)
    else:
        door.transact(function)
    assert seen == [name]


@pytest.mark.usefixtures("own")
def test_execution_options_and_serializers_of_the_engine_apply(
    open_door: OpenDoor, url: str
) -> None:
    door = open_door(
        url,
        json_serializer=lambda value: json.dumps(value, default=str),
        json_deserializer=lambda text: json.loads(text, parse_float=Decimal),
        execution_options={"schema_translate_map": {"elsewhere": None}},
    )

    def function(session: Session, append: Any) -> tuple[Any, Any]:
        both(session, append)
        echo = text("SELECT :value").bindparams(bindparam("value", type_=JSON)).columns(value=JSON)
        options = session.connection().get_execution_options()
        return session.scalar(echo, {"value": {"paid": Decimal("9.5"), "rate": 0.5}}), options

    value, options = door.transact(function)
    assert value == {"paid": "9.5", "rate": Decimal("0.5")}
    assert options["schema_translate_map"] == {"elsewhere": None}


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("driver", "level"),
    in_turn(DRIVERS[:1], DRIVERS[1:], ["REPEATABLE READ", "SERIALIZABLE"]),
    indirect=["driver"],
)
def test_the_isolation_level_of_the_engine_applies(
    open_door: OpenDoor, url: str, level: str
) -> None:
    def function(session: Session, append: Any) -> Any:
        both(session, append)
        return session.scalar(text("SHOW transaction_isolation"))

    assert open_door(url, isolation_level=level).transact(function) == level.lower()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "options",
    [{"isolation_level": "AUTOCOMMIT"}, {"execution_options": {"isolation_level": "AUTOCOMMIT"}}],
    ids=["engine", "option"],
)
def test_autocommit_is_refused_before_anything_is_sent(
    open_door: OpenDoor, proxy: PostgresProxy, options: dict[str, Any]
) -> None:
    with pytest.raises(TransactionMisused, match="AUTOCOMMIT"):
        open_door(proxy.url, **options).transact(both)
    assert not [sql for sql in proxy.statements if "dsql_outbox" in sql or "own" in sql]


class TwoPhase(Session):
    """A session that commits in two phases, whatever its sessionmaker says."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"twophase": True})


@pytest.mark.parametrize("options", [{"kind": TwoPhase}, {"sessions": {"twophase": True}}])
def test_a_commit_in_two_phases_is_refused_before_anything_is_sent(
    open_door: OpenDoor, own: Tables, url: str, options: dict[str, Any]
) -> None:
    """The guards would not be in it."""
    door = open_door(url, **options)
    with pytest.raises(TypeError, match="commits in one phase"):
        door.transact(both)
    assert (own_rows(own), ids(own)) == (0, set())


def test_what_a_savepoint_undoes_is_no_error_unless_it_is_an_event(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    def block(session: Session, act: Callable[[], object]) -> None:
        with suppress(DBAPIError), session.begin_nested():
            session.add(Own(n=2))
            act()
            session.execute(text("SELECT 1 / 0"))

    def honest(session: Session, append: Any) -> None:
        block(session, session.flush)
        both(session, append)

    def undoes(session: Session, append: Any) -> None:
        both(session, append)
        block(session, lambda: append(new_event()))

    open_door(url).transact(honest)
    with pytest.raises(TransactionMisused, match="1 of 2 events"):
        open_door(url).transact(undoes)
    assert (own_rows(own), len(ids(own))) == (1, 1)


def test_a_call_that_comes_again_gets_the_receipt_of_the_first(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    event = workload_s.car_created()

    def function(session: Session, append: Any) -> Receipt:
        receipt: Receipt = append(event)
        session.add(Own(n=1))
        return receipt

    door = open_door(url)
    found = [door.transact(function, on_duplicate="return").status for _ in range(3)]
    assert found == ["committed", "duplicate", "duplicate"]
    assert (own_rows(own), ids(own)) == (1, {event.id})


def test_calls_that_name_an_entity_run_one_at_a_time(own: Tables, url: str) -> None:
    """They read what they change, and never meet a conflict."""
    own.execute("UPDATE own SET n = 100")
    engine = create_engine(engine_url(url, "psycopg"), isolation_level="REPEATABLE READ")

    def function(session: Session) -> Receipt:
        found = session.scalar(text("SELECT n FROM own"))
        session.execute(text("UPDATE own SET n = :n"), {"n": found + 1})
        return writer.append_to(session, new_event())

    with Writer(Database(url), QUICK) as writer:
        call = partial(
            transact, writer, sessionmaker(engine), function, entities=[("Car", "CAR-1")]
        )
        receipts = Running([call] * 5).results()
    engine.dispose()
    assert [receipt.conflicts for receipt in receipts] == [0] * 5
    assert own.execute("SELECT n FROM own") == [{"n": 105}]


def test_a_statement_that_is_not_awaited_ends_the_call(own: Tables, url: str) -> None:
    async def call() -> None:
        engine = create_async_engine(engine_url(url, "asyncpg"))
        async with AsyncWriter(Database(url), QUICK) as writer:

            async def function(session: AsyncSession) -> Any:
                await writer.append_to(session, new_event())
                return session.execute(text("INSERT INTO own VALUES (4)"))

            with pytest.raises(TypeError, match="a coroutine that it has not awaited"):
                await transact(writer, async_sessionmaker(engine), function)
        await engine.dispose()

    asyncio.run(call())
    assert (own_rows(own), ids(own)) == (0, set())


def test_an_append_that_is_not_awaited_ends_the_call(own: Tables, url: str) -> None:
    engine = create_async_engine(engine_url(url, "asyncpg"))

    async def call() -> None:
        left: list[Any] = []

        async def function(session: AsyncSession) -> None:
            await session.execute(text("INSERT INTO own VALUES (1)"))
            left.append(writer.append_to(session, new_event()))

        async with AsyncWriter(Database(url), QUICK) as writer:
            with pytest.raises(TransactionMisused, match="1 append was not awaited"):
                await transact(writer, async_sessionmaker(engine), function)
        left[0].close()
        await engine.dispose()

    asyncio.run(call())
    assert (own_rows(own), ids(own)) == (0, set())


def test_a_server_that_refuses_the_mark_gets_none_on_this_engine_any_more(
    open_door: OpenDoor, own: Tables, proxy: PostgresProxy
) -> None:
    """As Aurora DSQL does. The guards of the events are left."""
    proxy.refuse(1, matching="set_config", sqlstate="0A000", message="not supported")
    door = open_door(proxy.url)
    for _ in range(2):
        door.transact(both)
    with pytest.raises(TransactionMisused, match="0 of 1 event"):
        door.transact(lambda session, append: (both(session, append), session.execute(UNDO)))
    assert sum("set_config" in sql for sql in proxy.statements) == 1
    assert (own_rows(own), len(ids(own))) == (2, 2)
