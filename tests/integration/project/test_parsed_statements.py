"""How often statements are parsed and described in the steady state, counted on the wire.

On Aurora DSQL a Parse or a Describe without an Execute, outside of a transaction, is a read-only
transaction. A pair of numbers here is the Parses and the Describes of an exchange.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Final

import anyio
import pytest
from tests.support.publisher.running_relays import patient_beats
from tests.support.wire_counts import CountingProxy
from tests.support.writer import workload_s
from tests.support.writer.caller_sessions import OpenCaller, open_caller

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.exchange import PREPARE_AFTER
from dsql_outbox.publisher import Publisher, PublisherSettings
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Transaction, Writer

__all__ = ["open_caller", "patient_beats"]

pytestmark = pytest.mark.anyio

WRITE: Final = 'INTO "outbox".business_events'
READ: Final = "AS end_position"
DELETE: Final = 'DELETE FROM "outbox".outbox o'
BEAT: Final = "Keep leases for longer, announce"
SETTINGS: Final = "set_config('plan_cache_mode'"
TIMES: Final = PREPARE_AFTER + 3


@pytest.fixture
def wire(url: str) -> Iterator[CountingProxy]:
    """A proxy in front of the outbox."""
    with CountingProxy(url) as proxy:
        yield proxy


def new(numbers: Iterator[int]) -> str:
    return f"car {next(numbers)}"


@pytest.mark.parametrize("events", [1, 100])
def test_a_connection_of_a_writer_parses_by_itself_once(wire: CountingProxy, events: int) -> None:
    names = partial(new, count())
    with Writer(Database(wire.url)) as writer:
        writer.write(workload_s.car_created("before"))  # the first asks for shards and form
        wire.groups.clear()
        for _ in range(TIMES):
            given = [workload_s.car_created(names()) for _ in range(events)]
            writer.write_many(given) if events > 1 else writer.write(given[0])
    before = PREPARE_AFTER - (events == 1)
    assert wire.of(WRITE) == [(1, 1)] * before + [(0, 1)] * (TIMES - before)
    assert [WRITE in text for text in wire.alone()] == [True]
    assert len(wire.groups) == TIMES + 1


def test_a_connection_for_functions_parses_an_append_by_itself_once(wire: CountingProxy) -> None:
    with Writer(Database(wire.url)) as writer:
        for n in range(TIMES):
            event = workload_s.car_created(f"car {n}")
            writer.transact(partial(Transaction.append, event=event))
    assert wire.of(WRITE) == [(1, 1)] * PREPARE_AFTER + [(0, 1)] * (TIMES - PREPARE_AFTER)
    assert len([text for text in wire.alone() if WRITE in text]) == 1


@pytest.mark.parametrize(
    ("driver", "counted"), [("psycopg", (0, 1)), ("asyncpg", (0, 0)), ("psycopg2", (0, 0))]
)
def test_an_appended_event_parses_nothing_by_itself(
    wire: CountingProxy, open_caller: OpenCaller, driver: str, counted: tuple[int, int]
) -> None:
    caller = open_caller(driver, wire.url)
    names = partial(new, count())

    def append() -> None:
        caller.append(workload_s.car_created(names()))
        caller.commit()

    for _ in range(PREPARE_AFTER + 1):  # psycopg prepares at the sixth
        append()
    wire.groups.clear()
    for _ in range(3):
        append()
    assert wire.of(WRITE) == [counted] * 3
    assert [each for each in wire.groups if each.parsed] == []
    assert wire.alone() == []


async def test_a_publisher_parses_by_itself_once_on_a_connection(wire: CountingProxy) -> None:
    """As on Aurora DSQL, which takes no settings, so that a read is not prepared."""
    wire.refuse(None, sqlstate="0A000", message="not supported", matching=SETTINGS)
    quick = PublisherSettings(idle_max=0.05, lease=0.5)
    numbers = count()
    with Writer(Database(wire.url)) as writer:
        writer.write(workload_s.car_created(new(numbers)))
        sink = MemorySink()
        async with Publisher(Database(wire.url), sink, quick):
            await until(lambda: len(sink.messages) == 1 and len(wire.of(READ)) > 1)
            wire.groups.clear()
            writer.write(workload_s.car_created(new(numbers)))
            await until(lambda: len(wire.of(BEAT)) > PREPARE_AFTER + 2 and len(sink.messages) == 2)
            found = {part: wire.of(part) for part in (READ, DELETE, BEAT)}
            alone = wire.alone()
    assert set(found[READ]) == {(1, 1)}
    assert set(found[DELETE]) == {(1, 1)}
    assert set(found[BEAT][PREPARE_AFTER:]) == {(0, 1)}
    assert [BEAT in text for text in alone] == [True]


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - the state is another's
            await anyio.sleep(0.005)
