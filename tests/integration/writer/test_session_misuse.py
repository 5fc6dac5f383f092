"""Each way to end, leave or evade the session inside `transact`: misuse, and nothing stored."""

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import isawaitable
from itertools import product
from typing import Any
from weakref import ref

import asyncpg
import pytest
from sqlalchemy import Connection, create_engine, event, insert, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, NoResultFound, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only
from tests.support.driver_sessions import engine_url
from tests.support.pairs import in_turn
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import (
    DRIVERS,
    AsyncDoor,
    Base,
    OpenDoor,
    Own,
    driver,
    new_event,
    open_door,
)
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox import Receipt, TransactionMisused, transact

__all__ = ["driver", "open_door", "own"]

pytestmark = pytest.mark.postgres_only("the sessions of these callers pass the endpoint by")


def begin_block(session: Session) -> None:
    with session.begin():
        session.add(Own(n=5))


def savepoint_block(session: Session) -> None:
    with session.begin_nested():
        session.add(Own(n=6))


def closing_block(session: Session) -> None:
    with session:
        session.add(Own(n=7))


def transaction_of(session: Session) -> Any:
    session.connection()
    return session.get_transaction()


CALLS: dict[str, Callable[[Session], Any]] = {
    "commit": Session.commit,
    "rollback": Session.rollback,
    "close": Session.close,
    "reset": Session.reset,
    "invalidate": Session.invalidate,
    "begin": lambda session: session.begin(),
    "begin block": begin_block,
    "savepoint block": savepoint_block,
    "closing block": closing_block,
    "transaction commit": lambda session: transaction_of(session).commit(),
    "transaction rollback": lambda session: transaction_of(session).rollback(),
    "transaction close": lambda session: transaction_of(session).close(),
    "connection commit": lambda session: session.connection().commit(),
    "connection rollback": lambda session: session.connection().rollback(),
    "connection close": lambda session: session.connection().close(),
    "lent connection commit": lambda session: session.connection().connection.commit(),
    "lent connection rollback": lambda session: session.connection().connection.rollback(),
    "connection detach": lambda session: session.connection().detach(),
    "connection invalidate": lambda session: session.connection().invalidate(),
    "connection savepoint": lambda session: session.connection().begin_nested(),
}
SWALLOWED = (TransactionMisused, SQLAlchemyError)
WAYS: list[tuple[str, str | None, tuple[type[Exception], ...]]] = [
    ("first", None, ()),
    ("added", None, SWALLOWED),
    ("flushed", None, ()),
    ("added", "INSERT INTO own", SWALLOWED),
]
"""Where the call stands, the statement that gets a conflict, and the errors that are swallowed."""

HARMLESS = {"begin", "begin block", "savepoint block", "connection detach", "connection savepoint"}
"""The calls that end nothing: SQLAlchemy refuses them, or they take nothing away."""


@pytest.mark.filterwarnings("ignore:transaction already deassociated")
@pytest.mark.parametrize(
    ("driver", "name"), in_turn(DRIVERS[:1], DRIVERS[1:], [*CALLS]), indirect=["driver"]
)
def test_no_call_of_the_session_parts_its_rows_from_the_event(  # noqa: C901 - one table of ways
    open_door: OpenDoor, proxy: PostgresProxy, own: Tables, driver: str, name: str
) -> None:
    """Wherever the call stands, beside a conflict or not, and if its error is swallowed."""
    if (driver, name) == ("psycopg of tasks", "connection detach"):
        pytest.skip("SQLAlchemy leaves a detached connection of this driver open")
    door = open_door(proxy.url)

    def misusing(place: str, swallowed: tuple[type[Exception], ...]) -> Callable[..., None]:
        def call(at: str, session: Session) -> None:
            if at == place:
                with suppress(*swallowed):
                    CALLS[name](session)

        def function(session: Session, append: Any) -> None:
            call("first", session)
            append(new_event())
            session.add(Own(n=1))
            call("added", session)
            session.flush()
            call("flushed", session)
            session.execute(text("SELECT 1"))

        return function

    for place, conflict, swallowed in WAYS:
        own.execute("DELETE FROM own WHERE n > 0")
        before = ids(own)
        if conflict is not None:
            proxy.refuse(1, matching=conflict)
        try:
            door.transact(misusing(place, swallowed))
        except TransactionMisused:
            added = 0
        except SQLAlchemyError:
            assert name in HARMLESS
            added = 0
        else:
            assert name in HARMLESS
            added = 1
        what = (place, conflict, swallowed)
        assert (min(own_rows(own), 1), len(ids(own) - before)) == (added, added), what
        proxy.heal()


def end_by_driver(session: Session, end: str) -> None:
    """End the transaction past SQLAlchemy."""
    found: Any = session.connection().connection.driver_connection
    ended = found.execute(end) if hasattr(found, "is_in_transaction") else getattr(found, end)()
    if isawaitable(ended):
        await_only(ended)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_that_the_driver_ends_is_found_before_the_commit(
    open_door: OpenDoor, own: Tables, url: str, end: str
) -> None:
    """What the function has committed itself is stored, and nothing else: asyncpg begins none."""

    def function(session: Session, append: Any) -> None:
        session.add(Own(n=1))
        session.flush()
        append(new_event())
        end_by_driver(session, end)
        with suppress(TransactionMisused):
            session.execute(text("INSERT INTO own VALUES (2)"))

    with pytest.raises(TransactionMisused, match="has ended the transaction itself"):
        open_door(url).transact(function)
    stored = int(end == "commit")
    assert (own_rows(own), len(ids(own))) == (stored, stored)


class Routed(Session):
    """A session that chooses its engine, as in SQLAlchemy's routing recipe."""

    elsewhere: Any = None

    def get_bind(self, mapper: Any = None, **options: Any) -> Any:
        return super().get_bind(**options) if mapper is None else self.elsewhere


def bind_mapper(session: Session, other: Any) -> None:
    session.bind_mapper(Own, other)
    session.add(Own(n=1))


def bind(session: Session, other: Any) -> None:
    session.bind = other
    session.add(Own(n=1))


EVASIONS: dict[str, Callable[[Session, Any], Any]] = {
    "get_bind": lambda session, _: session.add(Own(n=1)),
    "binds": bind_mapper,
    "bind": bind,
    "argument": lambda session, other: session.execute(
        insert(Own).values(n=1), bind_arguments={"bind": other}
    ),
    "connection": lambda session, other: session.connection(bind_arguments={"bind": other}),
}


@pytest.mark.parametrize(
    ("driver", "name"), in_turn(DRIVERS[:1], DRIVERS[1:], [*EVASIONS]), indirect=["driver"]
)
def test_a_session_that_uses_another_connection_stores_nothing(
    open_door: OpenDoor, own: Tables, url: str, name: str
) -> None:
    door: Any = open_door(url, kind=Routed if name == "get_bind" else Session)
    create: Any = create_async_engine if isinstance(door, AsyncDoor) else create_engine
    other = create(engine_url(url, "psycopg"), poolclass=NullPool)
    other = Routed.elsewhere = getattr(other, "sync_engine", other)

    for flushes, swallowed in product([True, False], [(), (TransactionMisused,)]):

        def function(session: Session, append: Any) -> None:
            append(new_event())
            with suppress(*swallowed):  # noqa: B023 - it runs within the loop's turn
                EVASIONS[name](session, other)
                if flushes:  # noqa: B023
                    session.flush()

        with pytest.raises(TransactionMisused, match="another connection"):
            door.transact(function)
        assert (own_rows(own), ids(own)) == (0, set())


class Numbered(Base):
    """A row with a value that changes."""

    __tablename__ = "numbered"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int]


CHANGES = ["changed outside", "changed inside", "merged", "parted"]


@pytest.fixture
def loaded(own: Tables, url: str) -> Iterator[Numbered]:
    """A row that was loaded by a session that is closed."""
    own.execute("CREATE TABLE numbered (id bigint PRIMARY KEY, value bigint NOT NULL)")
    own.execute("INSERT INTO numbered VALUES (1, 10)")
    engine = create_engine(engine_url(url, "psycopg"), poolclass=NullPool)
    with Session(engine) as session:
        row = session.get_one(Numbered, 1)
    yield row
    own.execute("DROP TABLE numbered")


@pytest.mark.parametrize("conflicts", [0, 2])
@pytest.mark.parametrize(
    ("driver", "way"), in_turn(DRIVERS[:1], DRIVERS[1:], CHANGES), indirect=["driver"]
)
def test_a_change_of_an_object_is_stored_with_its_event_or_refused(
    open_door: OpenDoor,
    proxy: PostgresProxy,
    own: Tables,
    loaded: Numbered,
    way: str,
    conflicts: int,
) -> None:
    """After a conflict SQLAlchemy forgets a change that was made before the function."""
    if conflicts:
        proxy.refuse(conflicts, at="commit")
    if way != "changed inside":
        loaded.value = 11

    def function(session: Session, append: Any) -> None:
        row = session.merge(loaded) if way == "merged" else loaded
        with suppress(*[TransactionMisused] if way == "parted" else []):
            session.add(row)
        if way == "changed inside":
            row.value = 11
        append(new_event())

    door = open_door(proxy.url)
    if way in {"changed outside", "parted"}:
        with pytest.raises(TransactionMisused, match=r"changed before.*session\.merge"):
            door.transact(function)
    else:
        door.transact(function)
    stored = way in {"changed inside", "merged"}
    assert own.execute("SELECT value FROM numbered") == [{"value": 11 if stored else 10}]
    assert len(ids(own)) == stored


@pytest.mark.parametrize(
    ("driver", "end"),
    in_turn(
        DRIVERS[:1],
        DRIVERS[1:],
        [
            ("committed", "after_transaction_end"),
            ("committed", "persistent_to_detached"),
            ("failed", "after_transaction_end"),
            ("failed", "after_soft_rollback"),
        ],
    ),
    indirect=["driver"],
)
def test_a_hook_that_raises_at_the_end_does_not_hide_the_outcome(
    open_door: OpenDoor,
    proxy: PostgresProxy,
    own: Tables,
    caplog: pytest.LogCaptureFixture,
    end: tuple[str, str],
) -> None:
    ends, hook = end

    class Hooked(Session):
        pass

    def fail(*_: object) -> None:
        raise RuntimeError("secret-of-the-hook")

    def function(session: Session, append: Any) -> Receipt:
        session.add(row := Own(n=1))
        session.flush()
        receipt: Receipt = append(new_event())
        event.listen(session, hook, fail)
        session.info["kept"] = row
        return receipt

    door = open_door(proxy.url, kind=Hooked)
    if ends == "committed":
        receipt = door.transact(function)
        assert (own_rows(own), ids(own)) == (1, {receipt.event_id})
    else:
        proxy.refuse(1, at="commit", sqlstate="23503", message="no such parent")
        with pytest.raises(IntegrityError, match="no such parent"):
            door.transact(function)
        assert (own_rows(own), ids(own)) == (0, set())
    assert "A hook of the session raised RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_a_hook_that_raises_before_the_commit_stores_nothing(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of a hook")

    def function(session: Session, append: Any) -> None:
        append(new_event())
        session.add(Own(n=1))
        event.listen(session, "after_flush", fail)

    with pytest.raises(RuntimeError, match="of a hook"):
        open_door(url).transact(function)
    assert (own_rows(own), ids(own)) == (0, set())


class Busy:
    """A transaction of asyncpg whose connection serves another task."""

    async def rollback(self) -> None:
        raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")


@pytest.mark.parametrize("driver", ["asyncpg"])
def test_a_connection_that_cannot_be_rolled_back_is_closed(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    """The pool would lend it again with its open transaction."""
    door = open_door(url, pool_size=1, max_overflow=0)

    def function(session: Session, append: Any) -> None:
        append(new_event())
        adapted: Any = session.connection().connection.dbapi_connection
        adapted._transaction = Busy()
        raise LookupError

    with pytest.raises(LookupError):
        door.transact(function)
    receipt = door.transact(lambda _, append: append(new_event()))
    assert ids(own) == {receipt.event_id}


@pytest.mark.parametrize("target", ["connection", "engine"])
@pytest.mark.parametrize(
    ("driver", "how"), in_turn(DRIVERS[:1], DRIVERS[1:], ["error", "rollback"]), indirect=["driver"]
)
def test_no_hook_comes_between_the_guards_and_the_commit(
    open_door: OpenDoor, own: Tables, url: str, target: str, how: str
) -> None:
    """One that swallows its error would have COMMIT answered by ROLLBACK, which drivers hide."""
    door = open_door(url)

    def hook(connection: Connection) -> None:
        if how == "rollback":
            connection.connection.rollback()
        else:
            with suppress(SQLAlchemyError):
                connection.execute(text("SELECT 1 / 0"))

    def function(session: Session, append: Any) -> None:
        session.add(Own(n=3))
        append(new_event())
        event.listen(
            session.connection() if target == "connection" else door.engine, "commit", hook
        )

    with pytest.raises((TransactionMisused, SQLAlchemyError)):
        door.transact(function)
    assert (own_rows(own), ids(own)) == (0, set())
    assert door.checked_out == 0


def test_a_session_that_outlives_its_function_sends_nothing(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    sessions: list[Session] = []
    door = open_door(url)

    def function(session: Session, append: Any) -> None:
        for old in sessions:
            with pytest.raises(InvalidRequestError, match="permanently closed"):
                old.execute(text("INSERT INTO own VALUES (5)"))
        sessions.append(session)
        append(new_event())

    door.transact(function)
    door.transact(function)
    assert (own_rows(own), len(ids(own))) == (0, 2)


def test_engines_that_share_a_pool_are_listened_to_once(open_door: OpenDoor, url: str) -> None:
    door = open_door(url)
    if isinstance(door, AsyncDoor):
        pytest.skip("its engine is the same")
    for _ in range(3):
        engine = door.engine.execution_options(isolation_level="REPEATABLE READ")
        transact(door.writer, sessionmaker(engine), lambda _: None)
    assert len(list(door.engine.dialect.dispatch.handle_error)) == 1


@pytest.mark.parametrize("takes_local_settings", [True, False])
def test_a_session_is_forgotten_after_its_call(
    open_door: OpenDoor, own: Tables, proxy: PostgresProxy, *, takes_local_settings: bool
) -> None:
    sessions: list[Any] = []
    door = open_door(proxy.url)
    if not takes_local_settings:
        proxy.refuse(1, matching="set_config", sqlstate="0A000", message="not supported")

    def function(session: Session, append: Any) -> None:
        sessions.append(ref(session))
        append(new_event())
        if len(sessions) > 1:
            raise LookupError

    door.transact(function)
    with pytest.raises(LookupError):
        door.transact(function)

    def are_gone() -> bool:
        gc.collect()
        return [session() for session in sessions] == [None, None]

    wait_until(are_gone)  # the task of a door may end a moment after its caller was told
    assert len(ids(own)) == 1


def test_a_rollback_before_an_error_of_the_function_hides_no_error(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    def function(session: Session, append: Any) -> None:
        append(new_event())
        try:
            session.execute(text("SELECT 1 WHERE false")).one()
        except NoResultFound:
            session.rollback()
            raise

    with pytest.raises(NoResultFound):
        open_door(url).transact(function)
    assert ids(own) == set()


def test_a_sessionmaker_without_autobegin_serves(
    open_door: OpenDoor, own: Tables, url: str
) -> None:
    def function(session: Session, append: Any) -> None:
        session.add(Own(n=1))
        append(new_event())

    open_door(url, sessions={"autobegin": False}).transact(function)
    assert (own_rows(own), len(ids(own))) == (1, 1)
