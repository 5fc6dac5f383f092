"""`append_to` on each driver: every case once through its commonest session.

For the other objects of a driver, only what may differ.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, Literal
from uuid import UUID

import anyio
import pytest
from sqlalchemy import event as hooks
from sqlalchemy.exc import StatementError
from tests.support.dsql.server import ON_DSQL
from tests.support.pairs import in_turn
from tests.support.proxy.faults import Held
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import refusing_server, workload_s
from tests.support.writer.caller_sessions import (
    ALL,
    COMMON,
    DRIVERS,
    DRIVERS_ERRORS,
    OF_SQLALCHEMY,
    OTHERS,
    SESSIONS,
    TAKEN,
    AsyncCaller,
    OpenCaller,
    leave_transaction,
    open_caller,
)
from tests.support.writer.callers import QUICK, formed, only_single
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.outbox import (
    Database,
    DuplicateEvent,
    Entity,
    Event,
    EventTooLarge,
    InvalidEvent,
    SchemaError,
    StaleVersion,
    TransactionMisused,
    WriterClosed,
    is_retryable,
)
from dsql_outbox.writer import AsyncWriter, Writer

__all__ = ["open_caller", "own"]


ROW = "INSERT INTO own VALUES (1)"
SECRET = "payload-7f3a"
STORED = UUID("5f0c6a1e-6c3e-4a0a-9f43-2d8c1a5b7e90")

ASYNC = [kind for kind in ALL if "sync" in kind or kind.startswith("asyncpg")]
TASKS = [kind for kind in DRIVERS if kind in ASYNC]

EVENTS = [workload_s.car_created, workload_s.three_entities]


def written(url: str, event: Event) -> None:
    """Store an event beside the caller."""
    with Writer(Database(url), formed(QUICK)) as writer:
        writer.write(event)


@pytest.mark.pairs
@pytest.mark.parametrize("form", ["single", "plain"])
@pytest.mark.parametrize("make", EVENTS)
@pytest.mark.parametrize("kind", TAKEN)
def test_an_event_is_committed_with_the_callers_rows(
    own: Tables,
    url: str,
    open_caller: OpenCaller,
    kind: str,
    make: Callable[[], Event],
    form: Literal["single", "plain"],
) -> None:
    """Of an event alone, SQLAlchemy sees no statement, and might roll back at the end."""
    caller, rows = open_caller(kind, url, settings=replace(QUICK, form=form)), EVENTS.index(make)
    if rows:
        caller.execute(ROW)
    receipt = caller.append(make())
    assert (own_rows(own), ids(own)) == (0, set())
    caller.commit()
    own.assert_true_to({receipt.event_id: receipt})
    assert (own_rows(own), ids(own)) == (rows, {receipt.event_id})


@pytest.mark.parametrize(("kind", "is_first"), in_turn(COMMON, [*OTHERS, "django"], [True, False]))
def test_an_event_is_rolled_back_with_the_callers_rows(
    own: Tables, url: str, open_caller: OpenCaller, kind: str, *, is_first: bool
) -> None:
    """Also one that is the first statement of its transaction."""
    caller = open_caller(kind, url)
    if not is_first:
        caller.execute(ROW)
    caller.append(workload_s.car_created())
    caller.execute(ROW)
    caller.rollback()
    assert (own_rows(own), ids(own)) == (0, set())


ERRORS: dict[str, tuple[type[Exception], Any, dict[str, Any]]] = {
    "not valid": (InvalidEvent, b"{}", {}),
    "wrong argument": (ValueError, workload_s.car_created(), {"expected_version": -1}),
    "too large": (
        EventTooLarge,
        Event.new("A", [Entity("Car", "CAR-1", {"text": "x" * (1 << 20)})]),
        {},
    ),
    "stale": (StaleVersion, workload_s.car_created(), {"expected_version": 7}),
    "stored before": (DuplicateEvent, workload_s.car_created(id=STORED), {}),
    "closed": (WriterClosed, workload_s.car_created(), {}),
    "out of reach": (Exception, workload_s.car_created(), {}),
}

SWALLOWED = [
    (kind, name, n % 2 == 0) for n, (kind, name) in enumerate(in_turn(COMMON, OTHERS, [*ERRORS]))
]
"""Of an odd number of errors, each is the first statement for one kind and not for the next."""


@pytest.mark.parametrize(("kind", "name", "is_first"), SWALLOWED)
def test_after_an_error_that_is_swallowed_nothing_can_be_committed(
    own: Tables, url: str, open_caller: OpenCaller, kind: str, name: str, *, is_first: bool
) -> None:
    """Neither what was sent before the error, nor what comes after it."""
    error, event, options = ERRORS[name]
    written(url, workload_s.car_created(id=STORED))
    database = Database("host=/nonexistent") if name == "out of reach" else None
    caller = open_caller(kind, url, database=database)
    if name == "closed":
        caller._run(caller.writer.close)
    if not is_first:
        caller.execute(ROW)
    with pytest.raises(error):
        caller.append(event, **options)
    with pytest.raises(DRIVERS_ERRORS, match="transaction is aborted"):
        caller.execute(ROW)
    caller.commit()
    assert (own_rows(own), ids(own)) == (0, {STORED})


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_stale_version_and_a_duplicate_are_told_alike_by_each_driver(
    own: Tables, url: str, open_caller: OpenCaller, kind: str
) -> None:
    stored = workload_s.car_created()
    written(url, stored)
    caller = open_caller(kind, url)
    with pytest.raises(StaleVersion) as stale:
        caller.append(workload_s.car_created(), expected_version=3)
    assert (stale.value.expected, stale.value.actual) == (3, 1)
    caller.rollback()
    for event, expected in product((stored, workload_s.loan_created(id=stored.id)), (None, 4)):
        with pytest.raises(DuplicateEvent) as duplicate:
            caller.append(event, expected_version=expected)
        assert duplicate.value.event_id == stored.id
        assert duplicate.value.same_content == (event is stored)
        assert duplicate.value.__cause__ is not None
        caller.rollback()
    twice = workload_s.car_created()
    caller.append(twice)
    with pytest.raises(DRIVERS_ERRORS):  # it is stored nowhere yet
        caller.append(twice)
    caller.rollback()
    assert ids(own) == {stored.id}


@pytest.mark.parametrize("kind", COMMON)
def test_tables_that_are_missing_are_told_alike_by_each_driver(
    url: str, tables: Tables, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, url)
    caller.append(workload_s.car_created())  # the writer knows the shards
    caller.rollback()
    tables.execute("ALTER TABLE outbox.event_headers RENAME TO gone")
    try:
        with pytest.raises(SchemaError, match="schema apply"):
            caller.append(workload_s.car_created())
        caller.rollback()
    finally:
        tables.execute("ALTER TABLE outbox.gone RENAME TO event_headers")


@pytest.mark.postgres_only("Aurora DSQL has no savepoints")
@pytest.mark.parametrize("kind", DRIVERS)
def test_an_event_and_an_error_live_and_die_with_their_savepoint(
    own: Tables, url: str, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, url)
    caller.execute(ROW)
    caller.execute("SAVEPOINT one")
    caller.append(workload_s.car_created())
    caller.execute("ROLLBACK TO SAVEPOINT one")
    with pytest.raises(InvalidEvent):
        caller.append(b"{}")
    caller.execute("ROLLBACK TO SAVEPOINT one")
    receipt = caller.append(workload_s.car_created())
    caller.commit()
    assert (own_rows(own), ids(own)) == (1, {receipt.event_id})
    own.assert_true_to({receipt.event_id: receipt})


@pytest.mark.parametrize("kind", DRIVERS)
def test_the_loser_of_a_conflict_may_be_retried(
    own: Tables, url: str, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, url, isolation="repeatable read")
    event = workload_s.car_created()
    caller.execute("SELECT n FROM own")
    written(url, workload_s.car_created())
    losing: Any = partial(caller.append, event)
    if ON_DSQL:  # it refuses the COMMIT
        losing()
        losing = caller.commit
    with pytest.raises(Exception, match=r"concurrent update|OC000") as lost:
        losing()
    assert is_retryable(lost.value)
    if not ON_DSQL:
        with pytest.raises(DRIVERS_ERRORS):
            caller.execute(ROW)
    caller.rollback()
    assert caller.append(event).entities[0].version == 2
    caller.commit()
    assert event.id in ids(own)


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_conflict_at_commit_may_be_retried_with_the_same_event(
    own: Tables, url: str, proxy: PostgresProxy, open_caller: OpenCaller, kind: str
) -> None:
    """Where Aurora DSQL finds it."""
    event = workload_s.car_created()
    caller = open_caller(kind, proxy.url, database=Database(url))
    caller.execute(ROW)
    caller.append(event)
    proxy.refuse(at="commit", sqlstate="40001", matching="business_events")
    with pytest.raises(Exception) as lost:  # noqa: PT011 - each driver has its own
        caller.commit()
    assert is_retryable(lost.value)
    assert (own_rows(own), ids(own)) == (0, set())
    again = open_caller(kind, url)
    again.append(event)
    again.commit()
    assert ids(own) == {event.id}


@pytest.mark.client
@only_single("the plain form has a round trip per statement")
@pytest.mark.parametrize("kind", DRIVERS)
def test_an_append_costs_one_round_trip_on_each_driver(
    own: Tables, url: str, proxy: PostgresProxy, open_caller: OpenCaller, kind: str
) -> None:
    """Once the writer knows the shards, and asyncpg has prepared the statement."""
    caller = open_caller(kind, proxy.url, database=Database(url))
    caller.append(workload_s.car_created())
    proxy.reset_counts()
    receipt = caller.append(workload_s.car_created())
    assert proxy.round_trips == 1
    caller.commit()
    assert receipt.event_id in ids(own)


@pytest.mark.parametrize(
    ("kind", "where"), in_turn(COMMON, OTHERS, ["before", "after_sent", "mid_answer"])
)
def test_a_connection_that_is_lost_at_the_statement_stores_nothing(
    own: Tables, url: str, proxy: PostgresProxy, open_caller: OpenCaller, kind: str, where: Any
) -> None:
    event = workload_s.car_created()
    caller = open_caller(kind, proxy.url, database=Database(url))
    caller.execute(ROW)
    proxy.cut(where, matching="business_events")
    with pytest.raises(Exception) as lost:  # noqa: PT011 - as above
        caller.append(event)
    assert not is_retryable(lost.value)
    for call in (partial(caller.execute, ROW), caller.commit, caller.rollback):
        with suppress(Exception):  # the driver's, or SQLAlchemy's
            call()
    assert (own_rows(own), ids(own)) == (0, set())
    again = open_caller(kind, url)
    again.append(event)
    again.commit()
    assert ids(own) == {event.id}


@only_single("there is no other form")
@pytest.mark.parametrize("kind", SESSIONS)
def test_a_form_that_the_server_refuses_is_not_tried_again(
    own: Tables, url: str, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, url, settings=replace(QUICK, form="auto"))
    refusing_server.refuse(own.execute, "0A000")
    try:
        with pytest.raises(StatementError):
            caller.append(workload_s.car_created())
        caller.rollback()
        receipt = caller.append(workload_s.car_created())
        caller.commit()
    finally:
        caller.rollback()
        refusing_server.accept(own.execute)
    own.assert_true_to({receipt.event_id: receipt})


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("kind", COMMON)
def test_after_a_lost_commit_the_same_event_is_stored_once(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_caller: OpenCaller,
    kind: str,
    *,
    is_stored: bool,
) -> None:
    event = workload_s.car_created()
    caller = open_caller(kind, proxy.url, database=Database(url))
    caller.append(event)
    proxy.cut("after_commit" if is_stored else "before", matching="COMMIT")
    with pytest.raises(Exception) as lost:  # noqa: PT011 - each driver has its own
        caller.commit()
    assert not is_retryable(lost.value)
    again = open_caller(kind, url)
    if is_stored:
        with pytest.raises(DuplicateEvent):
            again.append(event)
    else:
        again.append(event)
        again.commit()
    assert ids(own) == {event.id}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_session_that_would_commit_the_event_alone_is_refused(
    own: Tables, url: str, open_caller: OpenCaller, kind: str
) -> None:
    """asyncpg's connection begins no transaction by itself, so it is one of these."""
    if kind in OF_SQLALCHEMY:
        caller, remedy = open_caller(kind, url, isolation="AUTOCOMMIT"), "an engine without isolat"
    else:
        caller, remedy = open_caller(kind, url), "use (with Django )?`"
        leave_transaction(caller, kind)
    with pytest.raises(
        TransactionMisused, match=f"append_to needs an open transaction: .*{remedy}"
    ):
        caller.append(workload_s.car_created())
    assert ids(own) == set()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("kind", ["asyncpg AsyncSession", "asyncpg AsyncConnection"])
def test_a_transaction_that_a_text_has_ended_takes_no_event(
    own: Tables, url: str, open_caller: OpenCaller, kind: str, end: str
) -> None:
    """SQLAlchemy does not begin another one, so asyncpg would commit the event alone."""
    caller = open_caller(kind, url)
    caller.execute(ROW)
    caller.execute(end)
    with pytest.raises(TransactionMisused, match="would be stored on its own"):
        caller.append(workload_s.car_created())
    assert ids(own) == set()
    caller.rollback()
    caller.append(workload_s.car_created())
    caller.commit()
    assert len(ids(own)) == 1


@pytest.mark.client
@pytest.mark.pairs
@pytest.mark.parametrize("limit", ["asyncio", "anyio"])
@pytest.mark.parametrize("where", ["the first use", "the statement"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_time_limit_around_the_call_alone_fails_the_transaction(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_caller: OpenCaller,
    kind: str,
    where: str,
    limit: str,
) -> None:
    """anyio's limit would cancel each statement that follows inside of its block."""
    at_first_use = where == "the first use"
    database = Database(proxy.url)
    caller = open_caller(kind, url if at_first_use else proxy.url, database=database)
    if not at_first_use:
        caller.append(workload_s.car_created())
        caller.rollback()
    caller.execute(ROW)
    held = proxy.hold(matching="outbox_leases" if at_first_use else "business_events")
    caller.portal.call(_append_until, held, limit, caller)
    with pytest.raises(DRIVERS_ERRORS):
        caller.execute(ROW)
    for end in (caller.commit, caller.rollback):
        with suppress(*DRIVERS_ERRORS):  # a connection that was given up has no transaction
            end()
    assert (own_rows(own), ids(own)) == (0, set())


async def _append_until(held: Held, limit: str, caller: AsyncCaller) -> None:
    """Let a limit end the call when its statement is held."""
    append = partial(caller.writer.append_to, caller.given, workload_s.car_created())
    arrived = asyncio.ensure_future(asyncio.to_thread(held.arrived))
    if limit == "asyncio":
        block = asyncio.timeout(None)
        arrived.add_done_callback(lambda _: _end(partial(block.reschedule, 0), held))
        with pytest.raises(TimeoutError):
            await _within(block, append)
    else:
        with anyio.CancelScope() as scope:
            arrived.add_done_callback(lambda _: _end(scope.cancel, held))
            await append()
        assert scope.cancelled_caught


async def _within(block: asyncio.Timeout, append: Callable[[], Any]) -> None:
    async with block:
        await append()


def _end(cancel: Callable[[], None], held: Held) -> None:
    """Cancel, and release the statement once the cancellation has been delivered."""
    cancel()
    loop = asyncio.get_running_loop()
    turns = 10  # of the event loop

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            held.release()

    turn(turns)


@pytest.mark.client
@pytest.mark.parametrize("kind", SESSIONS)
def test_hooks_of_the_engine_see_the_statement_and_may_change_it(
    own: Tables, url: str, proxy: PostgresProxy, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, proxy.url, database=Database(url))
    engine = caller.engine

    @hooks.listens_for(engine, "before_cursor_execute", retval=True)
    def comment(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        return f"/* of a hook */ {statement}", parameters

    receipt = caller.append(workload_s.car_created())
    caller.commit()
    own.assert_true_to({receipt.event_id: receipt})
    assert any("of a hook" in sql and "business_events" in sql for sql in proxy.statements)


@pytest.mark.client
@pytest.mark.parametrize("name", ["log", "error"])
@pytest.mark.parametrize("kind", SESSIONS)
@pytest.mark.usefixtures("own")
def test_sqlalchemy_writes_no_payload_into_its_log_and_its_errors(
    url: str,
    open_caller: OpenCaller,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    name: str,
) -> None:
    event = Event.new("CarSold", [Entity("Car", "CAR-1", {"note": SECRET})])
    caller = open_caller(kind, url, echo=name == "log")
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        caller.append(event)
    if name == "log":
        assert "business_events" in caplog.text
    else:
        with pytest.raises(StatementError) as raised:  # the same id again, which is not stored yet
            caller.append(event)
        assert "business_events" in str(raised.value)
        assert SECRET not in f"{raised.value!r} {raised.value} {raised.value.params!r}"
    assert SECRET not in caplog.text


@pytest.mark.client
@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 10}])
@pytest.mark.parametrize("kind", SESSIONS)
def test_an_engine_whose_results_are_streamed_writes_events(
    own: Tables, url: str, open_caller: OpenCaller, kind: str, options: dict[str, Any]
) -> None:
    caller = open_caller(kind, url, execution_options=options)
    receipt = caller.append(workload_s.car_created())
    caller.commit()
    own.assert_true_to({receipt.event_id: receipt})


@pytest.mark.client
@pytest.mark.parametrize("kind", ALL)
def test_a_session_for_the_other_writer_is_refused_with_its_name(
    url: str, open_caller: OpenCaller, kind: str
) -> None:
    caller = open_caller(kind, url)
    event = workload_s.car_created()
    if kind in ASYNC:
        with (
            Writer(Database(url)) as writer,
            pytest.raises(TypeError, match=r"is for AsyncWriter$"),
        ):
            writer.append_to(caller.given, event)
    else:

        async def refused() -> None:
            async with AsyncWriter(Database(url)) as writer:
                with pytest.raises(TypeError, match=r"is for Writer$"):
                    await writer.append_to(caller.given, event)

        anyio.run(refused)
