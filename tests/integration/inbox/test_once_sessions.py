"""`once` and `once_many` in sessions of the consumer: every case on each driver and pool."""

import asyncio
import json
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import pytest
from msgspec.structs import replace
from tests.support.consumers import (
    COMMON,
    OTHERS,
    OpenConsumer,
    Work,
    open_consumer,
    outcomes,
    swallow,
)
from tests.support.inboxes import new_received, remembered
from tests.support.pairs import in_turn
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.inbox import Handled
from dsql_outbox.inbox import once as once_module
from dsql_outbox.outbox import (
    Entity,
    Event,
    InvalidEvent,
    MessageSetAside,
    TransactionMisused,
)

__all__ = ["open_consumer", "own"]

KINDS: Final = [*COMMON, *OTHERS]


def stored(own: Tables, url: str) -> tuple[int, int, int]:
    """The rows, the events and the messages that are stored."""
    return own_rows(own), len(ids(own)), len(remembered(url))


async def add(work: Work, message: Any) -> Any:
    await work.add()
    return message if isinstance(message, str) else message.position


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_its_rows_and_what_follows_are_one_commit_and_once(
    own: Tables, url: str, open_consumer: OpenConsumer, kind: str
) -> None:
    consumer, message = open_consumer(kind, url), new_received(20, 10)

    async def handle(work: Work, message: Any) -> Any:
        await work.append(workload_s.car_created())
        assert own_rows(own) == 0
        return await add(work, message)

    assert consumer.once(message, handle) == Handled(ran=True, value=20, order="first")
    assert consumer.once(message, handle) == Handled(ran=False)
    assert stored(own, url) == (1, 1, 1)
    assert consumer.once(new_received(30, 20), add).order == "next"


@pytest.mark.parametrize("kind", COMMON)
def test_what_follows_from_a_message_says_so_unless_it_says_something_else(
    own: Tables, url: str, open_consumer: OpenConsumer, kind: str
) -> None:
    consumer, first = open_consumer(kind, url), new_received()
    events = [Event.new("CarSold", [Entity("Car", f"C-{n}")]) for n in range(4)]
    events[2] = replace(events[2], headers={"correlationid": "request-7", "tenant": "acme"})

    def appending(event: Event) -> Any:
        async def handle(work: Work, _: Any) -> None:
            await work.append(event)

        return handle

    consumer.once(first, appending(events[0]))
    headers = {"correlationid": str(first.id)}
    consumer.once(replace(first, id=events[0].id, headers=headers), appending(events[1]))
    headers = {"correlationid": "no header\n"}
    consumer.once(replace(first, id=events[1].id, headers=headers), appending(events[2]))
    consumer.once("an id", appending(events[3]))

    rows = own.execute("SELECT event_id, headers::text AS headers FROM outbox.outbox")
    found = {row["event_id"]: json.loads(row["headers"]) for row in rows}
    names = ("correlationid", "causationid", "tenant")
    assert [[found[each.id].get(name) for name in names] for each in events] == [
        [str(first.id), str(first.id), None],
        [str(first.id), str(events[0].id), None],
        ["request-7", str(events[1].id), "acme"],
        [None, None, None],
    ]


async def raises(work: Work, _: Any) -> None:
    await work.add()
    raise LookupError("of the function")


async def swallows(work: Work, _: Any) -> None:
    await work.add()
    with swallow():
        await work.execute("SELECT 1 / 0")


async def commits(work: Work, _: Any) -> None:
    await work.add()
    with swallow():
        await work.execute("COMMIT")
    with swallow():
        await work.commit()


async def is_refused(work: Work, _: Any) -> None:
    await work.add()
    with swallow(InvalidEvent):
        await work.append({"not": "an event"})


ENDS: dict[str, tuple[Any, Any, str]] = {
    "raises": (raises, LookupError, "of the function"),
    "swallows": (swallows, Exception, "division by zero"),
    "commits": (commits, TransactionMisused, "function given to once has"),
    "append": (is_refused, InvalidEvent, "."),
}


@pytest.mark.parametrize(("kind", "end"), in_turn(COMMON, OTHERS, [*ENDS]))
def test_a_function_that_fails_stores_neither_its_rows_nor_the_memory_of_its_message(
    own: Tables, url: str, open_consumer: OpenConsumer, kind: str, end: str
) -> None:
    consumer, message = open_consumer(kind, url), new_received()
    function, error, why = ENDS[end]
    for _ in range(2):
        with pytest.raises(error, match=why):
            consumer.once(message, function)
    assert (consumer.runs, stored(own, url)) == (2, (0, 0, 0))
    assert consumer.once(message, add).order == "next"


FAULTS: dict[str, tuple[Callable[[PostgresProxy], object], int]] = {
    "conflict of a statement": (lambda proxy: proxy.refuse(1, matching="INSERT INTO own"), 2),
    "conflict of the memory": (lambda proxy: proxy.refuse(1, matching="inbox"), 1),
    "conflict at commit": (lambda proxy: proxy.refuse(1, at="commit", matching="COMMIT"), 2),
    "lost before": (lambda proxy: proxy.cut("before", matching="COMMIT"), 2),
    "lost after": (lambda proxy: proxy.cut("after_commit", matching="COMMIT"), 1),
    "lost statement": (lambda proxy: proxy.cut("after_sent", matching="INSERT INTO own"), 2),
}


@pytest.mark.parametrize(("kind", "fault"), in_turn(COMMON, OTHERS, [*FAULTS]))
def test_after_a_fault_the_message_is_handled_once_and_the_value_is_that_of_the_stored_run(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_consumer: OpenConsumer,
    kind: str,
    fault: str,
) -> None:
    consumer, message = open_consumer(kind, proxy.url), new_received()

    async def handle(work: Work, _: Any) -> int:
        await work.add()
        await work.append(workload_s.car_created())
        return int(consumer.runs)

    make_fault, runs = FAULTS[fault]
    make_fault(proxy)
    assert consumer.once(message, handle) == Handled(ran=True, value=runs, order="next")
    assert (consumer.runs, stored(own, url)) == (runs, (1, 1, 1))
    if not kind.startswith("own"):
        proxy.wait_until_closed(1)  # nobody gets the connection that met it
    assert not consumer.once(message, handle).ran


@pytest.mark.client
@pytest.mark.parametrize("kind", ["asyncpg", "psycopg of tasks", "pool of tasks"])
def test_a_call_that_is_cancelled_at_its_commit_stores_nothing(
    own: Tables, url: str, proxy: PostgresProxy, open_consumer: OpenConsumer, kind: str
) -> None:
    consumer, message = open_consumer(kind, proxy.url), new_received()
    held = proxy.hold(matching="AS kept")

    async def cancelled() -> None:
        call = asyncio.ensure_future(consumer.once_async(message, add))
        await asyncio.to_thread(held.arrived)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    consumer.portal.call(cancelled)
    held.drop()
    proxy.cut_all()
    assert stored(own, url) == (0, 0, 0)
    assert consumer.once(message, add).ran


@pytest.mark.client
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_function_that_is_busy_elsewhere_at_the_deadline_ends_in_the_error_of_the_driver(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_consumer: OpenConsumer,
    *,
    goes_on: bool,
) -> None:
    """asyncpg has no status for a connection that was ended meanwhile."""
    consumer = open_consumer("asyncpg", proxy.url)

    async def handle(work: Work, _: Any) -> None:
        await work.add()
        ends = monotonic() + 1.0
        await work.wait(lambda: wait_until(lambda: monotonic() > ends))
        if goes_on:
            await work.add()

    with pytest.raises(Exception, match="deadline"):
        consumer.once(new_received(), handle, timeout=0.7)
    assert (consumer.runs, stored(own, url)) == (1, (0, 0, 0))


BATCH: Final = [
    new_received(10),
    new_received(20, 10),
    "an id",
    new_received(10, key="Loan/2"),
    new_received(50, 40),
    "an id",
    new_received(20, 10, key="Loan/2"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_one_commit_that_tells_the_order_of_each_message(
    own: Tables, url: str, proxy: PostgresProxy, open_consumer: OpenConsumer, kind: str
) -> None:
    consumer = open_consumer(kind, proxy.url)
    consumer.once(BATCH[3], add)
    proxy.reset_counts()
    found = consumer.once_many(BATCH, add)
    assert outcomes(found) == ["next", "next", "new", "before", "gap", "before", "next"]
    assert [each.value for each in found if each.ran] == [10, 20, "an id", 50, 20]
    assert stored(own, url) == (6, 0, 6)
    assert [sql.strip(" ;") for sql in proxy.statements].count("COMMIT") == 1
    assert outcomes(consumer.once_many(BATCH, add)) == ["before"] * 7
    assert consumer.once(new_received(60, 50), add).order == "next"


def test_a_late_message_of_a_batch_does_not_move_its_subject_back(
    own: Tables, url: str, open_consumer: OpenConsumer
) -> None:
    del own
    batch = [new_received(20, 10), new_received(10), new_received(30, 20)]
    found = open_consumer(COMMON[0], url).once_many(batch, add)
    assert outcomes(found) == ["first", "late", "next"]


def failing_at(*bad: Any, by: Any = raises) -> Any:
    async def handle(work: Work, message: Any) -> Any:
        if message in bad:
            await by(work, message)
        return await add(work, message)

    return handle


SOME: Final = [new_received(n, n - 10, key=f"Loan/{n % 3}") for n in range(10, 130, 10)]


@pytest.mark.parametrize(("kind", "end"), in_turn(COMMON, OTHERS, [*ENDS]))
def test_of_a_batch_the_message_that_fails_is_set_aside_with_the_later_ones_of_its_subject(
    own: Tables, url: str, open_consumer: OpenConsumer, kind: str, end: str
) -> None:
    consumer = open_consumer(kind, url)
    by, error, _ = ENDS[end]
    found = consumer.once_many(SOME, failing_at(SOME[4], by=by))
    behind = [n for n in range(5, 12) if SOME[n].key == SOME[4].key]
    assert isinstance(found[4], error)
    assert [n for n, each in enumerate(found) if isinstance(each, MessageSetAside)] == behind
    assert found[behind[0]].__cause__ is found[4]
    assert consumer.runs <= 2 * len(SOME), "each function runs twice at most"
    assert stored(own, url)[0] == len(remembered(url)) == len(SOME) - 1 - len(behind)
    assert [each.ran for each in consumer.once_many(SOME, add)] == [
        n in {4, *behind} for n in range(12)
    ]


@pytest.mark.parametrize(("kind", "fault"), in_turn(COMMON[:1], OTHERS, [*FAULTS]))
def test_a_fault_repeats_a_whole_batch_and_each_message_is_handled_once(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_consumer: OpenConsumer,
    kind: str,
    fault: str,
) -> None:
    consumer = open_consumer(kind, proxy.url)
    make_fault, runs = FAULTS[fault]
    make_fault(proxy)
    found = consumer.once_many(SOME[:6], add)
    assert [each.value for each in found] == [each.position for each in SOME[:6]]
    assert stored(own, url) == (6, 0, 6)
    assert consumer.runs <= runs * 6


def test_many_that_fail_cost_each_function_two_runs(
    own: Tables, url: str, open_consumer: OpenConsumer
) -> None:
    consumer = open_consumer("own", url)
    messages = [f"m{n}" for n in range(60)]
    found = consumer.once_many(messages, failing_at(*messages[::3]))
    assert [isinstance(each, LookupError) for each in found] == [n % 3 == 0 for n in range(60)]
    assert consumer.runs <= 2 * len(messages)
    assert stored(own, url) == (40, 0, 40)


@pytest.mark.parametrize("limit", ["commit", "rows"])
def test_a_batch_that_cannot_be_committed_is_tried_in_parts(
    own: Tables,
    url: str,
    proxy: PostgresProxy,
    open_consumer: OpenConsumer,
    limit: str,
) -> None:
    """As by a deferred constraint, or over the limit of rows of Aurora DSQL."""
    consumer = open_consumer("own", proxy.url)
    code, place = ("23503", "COMMIT") if limit == "commit" else ("54000", "INSERT INTO own")
    at: Any = "commit" if limit == "commit" else "statement"

    async def handle(work: Work, message: Any) -> Any:
        if message.position == 50 and consumer.runs == 5:
            proxy.refuse(1, at=at, matching=place, sqlstate=code, message="too much")
        return await add(work, message)

    found = consumer.once_many(SOME, handle)
    assert all(each.ran for each in found)
    assert stored(own, url) == (12, 0, 12)


def test_a_long_batch_has_several_transactions(
    own: Tables, url: str, proxy: PostgresProxy, open_consumer: OpenConsumer, monkeypatch: Any
) -> None:
    monkeypatch.setattr(once_module, "MOST", 5)
    consumer = open_consumer("own", proxy.url)
    found = consumer.once_many(SOME, failing_at(SOME[3]))
    behind = [n for n in range(4, 12) if SOME[n].key == SOME[3].key]
    assert [n for n, each in enumerate(found) if isinstance(each, MessageSetAside)] == behind
    assert stored(own, url)[2] == 11 - len(behind)


def test_a_gap_in_a_batch_is_refused_and_the_others_are_handled(
    own: Tables, url: str, open_consumer: OpenConsumer
) -> None:
    consumer = open_consumer("own", url)
    messages = [new_received(10), new_received(30, 20), new_received(40, 30), "another"]
    found = consumer.once_many(messages, add, on_gap="raise")
    assert outcomes(found) == ["next", "MessageGap", "MessageSetAside", "new"]
    assert stored(own, url) == (2, 0, 2)


def test_an_outage_ends_a_batch_with_the_error_of_the_driver(
    own: Tables, url: str, proxy: PostgresProxy, open_consumer: OpenConsumer
) -> None:
    consumer = open_consumer("own", proxy.url)
    proxy.refuse(None, at="commit", matching="own")
    found: Sequence[Any] = consumer.once_many(SOME[:3], add, timeout=1.0)
    assert len({id(each) for each in found}) == 1
    assert isinstance(found[0], Exception)
    assert stored(own, url) == (0, 0, 0)
