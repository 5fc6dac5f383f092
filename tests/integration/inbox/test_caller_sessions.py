"""`remember` in the sessions of callers: every case once through the commonest of each driver."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from tests.support.database_roles import as_role
from tests.support.driver_sessions import engine_url
from tests.support.dsql.server import ON_DSQL
from tests.support.inboxes import new_received, remembered
from tests.support.pairs import in_turn
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.caller_sessions import (
    ALL,
    COMMON,
    DRIVERS,
    DRIVERS_ERRORS,
    GOVERNED,
    OF_ASYNCPG,
    OF_SQLALCHEMY,
    OTHERS,
    AsyncCaller,
    Caller,
    OpenCaller,
    leave_transaction,
    open_caller,
)
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import Own
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.inbox import AsyncInbox, Inbox, Received
from dsql_outbox.outbox import (
    Database,
    Entity,
    Event,
    MissingRight,
    SchemaError,
    TransactionMisused,
    is_retryable,
)
from dsql_outbox.schema.roles import Roles
from dsql_outbox.writer import AsyncWriter, transact

__all__ = ["open_caller", "own"]

ROW = "INSERT INTO own VALUES (1)"


THREADS = [kind for kind in ALL if "sync" not in kind and not kind.startswith("asyncpg")]

RememberFor = Callable[[Caller, Any], Any]


@pytest.fixture
def remember(url: str) -> RememberFor:
    """Remembers a message in the session of a caller."""

    def in_session(caller: Caller, message: Received | str) -> Any:
        inbox = _inbox_for(caller, url)
        return caller._run(inbox.remember, caller.given, message)

    return in_session


def _inbox_for(caller: Caller, url: str) -> Any:
    make: Any = AsyncInbox if isinstance(caller, AsyncCaller) else Inbox
    return make(Database(url), "mailer")


@pytest.mark.parametrize("kind", [*DRIVERS, "django"])
def test_a_message_in_its_rows_and_what_follows_are_one_commit(
    own: Tables, url: str, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    caller, message = open_caller(kind, url), new_received()
    assert remember(caller, message) == "next"
    caller.execute(ROW)
    receipt = caller.append(workload_s.car_created())
    assert (own_rows(own), ids(own), remembered(url)) == (0, set(), [])
    caller.commit()
    assert (own_rows(own), ids(own)) == (1, {receipt.event_id})
    assert remembered(url) == [("mailer", str(message.id))]
    own.assert_true_to({receipt.event_id: receipt})


@pytest.mark.parametrize("kind", [*DRIVERS, "django"])
def test_a_message_is_rolled_back_with_the_callers_rows(
    own: Tables, url: str, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    """With its place in its subject, and with the event that follows from it."""
    caller, message = open_caller(kind, url), new_received(20, 10)
    assert remember(caller, message) == "first"
    caller.execute(ROW)
    caller.append(workload_s.car_created())
    caller.rollback()
    assert (own_rows(own), ids(own), remembered(url)) == (0, set(), [])
    assert remember(caller, message) == "first"
    caller.commit()


@pytest.mark.parametrize("kind", [*DRIVERS, "django"])
@pytest.mark.usefixtures("own")
def test_each_session_tells_the_order_of_a_new_message(
    url: str, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    caller, repeated = open_caller(kind, url), new_received(40, 30)
    told: list[tuple[Received | str, str | None]] = [
        (new_received(10, 0), "next"),
        (new_received(20, 10), "next"),
        (repeated, "gap"),
        (new_received(50, 40), "next"),
        (new_received(30, 20), "late"),
        (repeated, None),
        (new_received(60, 50), "next"),
        (new_received(9, 8, key="Loan/2"), "first"),
        (new_received(5, 0, replay=1), "replay"),
        ("an id", "new"),
        ("an id", None),
    ]
    assert [remember(caller, message) for message, _ in told] == [order for _, order in told]
    caller.commit()
    with Inbox(Database(url), "mailer") as inbox:
        assert not inbox.once(repeated, lambda _: None).ran
        assert inbox.once(new_received(70, 60), lambda _: None).order == "next"


@pytest.mark.parametrize("kind", DRIVERS)
@pytest.mark.usefixtures("own")
def test_a_message_that_was_handled_before_does_not_move_its_subject(
    url: str, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    """The same event with a forged position, as of another sender."""
    caller, message = open_caller(kind, url), new_received(10)
    remember(caller, message)
    caller.commit()
    assert remember(caller, new_received(99, 10, event_id=message.id)) is None
    caller.commit()
    assert remember(caller, new_received(20, 10)) == "next"


@pytest.mark.client
@pytest.mark.parametrize("kind", [*DRIVERS, "django"])
@pytest.mark.usefixtures("own")
def test_a_message_costs_one_round_trip_on_each_driver(
    proxy: PostgresProxy, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    """Once asyncpg has prepared the statement."""
    caller = open_caller(kind, proxy.url)
    remember(caller, new_received(10))
    proxy.reset_counts()
    assert remember(caller, new_received(20, 10)) == "next"
    assert proxy.round_trips == 1


@pytest.mark.parametrize("kind", [*DRIVERS, "django"])
@pytest.mark.usefixtures("own")
def test_a_session_that_would_commit_the_message_alone_is_refused(
    url: str, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    if kind in OF_SQLALCHEMY:
        caller = open_caller(kind, url, isolation="AUTOCOMMIT")
    else:
        caller = open_caller(kind, url)
        leave_transaction(caller, kind)
    why = "remember needs an open transaction: .*so the message would be remembered on its own"
    with pytest.raises(TransactionMisused, match=why):
        remember(caller, new_received())
    assert remembered(url) == []


@pytest.mark.client
@pytest.mark.parametrize("kind", DRIVERS)
def test_a_session_for_the_other_inbox_is_refused_with_its_name(
    url: str, open_caller: OpenCaller, kind: str
) -> None:
    given = open_caller(kind, url).given
    if kind in THREADS:
        with pytest.raises(TypeError, match=r"remember of this inbox takes .* is for Inbox$"):
            anyio.run(AsyncInbox(Database(url), "mailer").remember, given, "a")
    else:
        with pytest.raises(TypeError, match=r"remember of this inbox takes .* is for AsyncInbox$"):
            Inbox(Database(url), "mailer").remember(given, "a")


WRONG: dict[str, Any] = {"an empty id": "", "no id": 7, "an id with NUL": "a\0"}


@pytest.mark.parametrize(("kind", "name"), in_turn(COMMON, [*OTHERS, "django"], [*WRONG]))
def test_after_an_error_that_is_swallowed_nothing_can_be_committed(
    own: Tables, url: str, open_caller: OpenCaller, remember: RememberFor, kind: str, name: str
) -> None:
    """Else the effect of a message would be stored without its memory."""
    caller = open_caller(kind, url)
    caller.execute(ROW)
    with pytest.raises((ValueError, TypeError), match=r"an id must have|remember takes an id"):
        remember(caller, WRONG[name])
    with pytest.raises(DRIVERS_ERRORS, match="transaction is aborted"):
        caller.execute(ROW)
    caller.commit()
    assert (own_rows(own), remembered(url)) == (0, [])


@pytest.mark.parametrize("kind", [*COMMON, "django"])
def test_tables_and_rights_that_are_missing_are_told_alike_by_each_driver(
    own: Tables,
    url: str,
    roles: Roles,
    open_caller: OpenCaller,
    remember: RememberFor,
    kind: str,
) -> None:
    caller = open_caller(kind, as_role(url, roles.reader))
    role = "" if ON_DSQL else roles.reader  # the stand-in tells asyncpg its own role
    with pytest.raises(MissingRight, match=f"schema grant --consumer {role}"):
        remember(caller, new_received())
    caller.rollback()
    own.execute("ALTER TABLE outbox.inbox_subjects RENAME TO gone")
    try:
        with pytest.raises(SchemaError, match="schema apply"):
            remember(caller, new_received())
        caller.rollback()
    finally:
        own.execute("ALTER TABLE outbox.gone RENAME TO inbox_subjects")


@pytest.mark.parametrize("kind", DRIVERS)
@pytest.mark.usefixtures("own")
def test_of_two_consumers_with_one_message_the_loser_may_retry(
    url: str, open_caller: OpenCaller, remember: RememberFor, kind: str
) -> None:
    caller, message = open_caller(kind, url, isolation="repeatable read"), new_received()
    caller.execute("SELECT n FROM own")
    with Inbox(Database(url), "mailer") as other:
        assert other.once(message, lambda _: None).ran
    losing: Any = partial(remember, caller, message)
    if ON_DSQL:  # it refuses the COMMIT
        losing()
        losing = caller.commit
    with pytest.raises(Exception, match=r"concurrent update|OC000") as lost:
        losing()
    assert is_retryable(lost.value)
    caller.rollback()
    assert remember(caller, message) is None


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("kind", COMMON)
def test_after_a_lost_commit_the_message_is_handled_once(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_caller: OpenCaller,
    remember: RememberFor,
    kind: str,
    *,
    is_stored: bool,
) -> None:
    caller, message = open_caller(kind, proxy.url, database=Database(url)), new_received()
    remember(caller, message)
    caller.execute(ROW)
    proxy.cut("after_commit" if is_stored else "before", matching="COMMIT")
    with pytest.raises(Exception) as lost:  # noqa: PT011 - each driver has its own
        caller.commit()
    assert not is_retryable(lost.value)
    again = open_caller(kind, url)
    if remember(again, message) is not None:
        assert not is_stored
        again.execute(ROW)
    again.commit()
    assert own_rows(own) == 1


@pytest.mark.client
@pytest.mark.parametrize("kind", [kind for kind in DRIVERS if kind not in THREADS])
def test_a_call_that_is_cancelled_fails_the_transaction(
    own: Tables, url: str, proxy: PostgresProxy, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, proxy.url)
    inbox = _inbox_for(caller, url)
    caller.execute(ROW)
    held = proxy.hold(matching="inbox")

    async def cancelled() -> None:
        call = asyncio.ensure_future(inbox.remember(caller.given, new_received()))
        await asyncio.to_thread(held.arrived)
        call.cancel()
        asyncio.get_running_loop().call_later(0, held.release)
        with pytest.raises(asyncio.CancelledError):
            await call

    caller.portal.call(cancelled)
    with pytest.raises(DRIVERS_ERRORS):
        caller.execute(ROW)
    for end in (caller.commit, caller.rollback):
        with suppress(*DRIVERS_ERRORS):  # a connection that was given up has no transaction
            end()
    assert (own_rows(own), remembered(url)) == (0, [])


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["before", "after_sent", "after_commit"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_in_transact_a_message_its_rows_and_what_follows_survive_a_lost_commit_once(
    own: Tables, url: str, proxy: PostgresProxy, driver: str, where: Any
) -> None:
    options: Any = OF_ASYNCPG if driver == "asyncpg" else GOVERNED
    own_to_driver: Any = {} if driver == "asyncpg" else {"use_native_hstore": False}
    engine = create_async_engine(
        engine_url(proxy.url, driver), poolclass=NullPool, connect_args=options, **own_to_driver
    )
    message = new_received()
    async with AsyncInbox(Database(url), "mailer") as inbox, AsyncWriter(Database(url)) as writer:

        async def handle(session: AsyncSession) -> bool:
            if await inbox.remember(session, message) is None:
                return False
            session.add(Own(n=1))
            await writer.append_to(session, Event.new("CarCreated", [Entity("Car", "CAR-1")]))
            return True

        proxy.cut(where, matching="COMMIT")
        assert await transact(writer, async_sessionmaker(engine), handle)
        assert not await transact(writer, async_sessionmaker(engine), handle)
    await engine.dispose()
    assert (own_rows(own), len(ids(own)), len(remembered(url))) == (1, 1, 1)
