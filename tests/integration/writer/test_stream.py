"""An entity's events, in version order, page by page."""

from itertools import islice

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import OpenTransactor, open_transactor

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

__all__ = ["open_transactor"]


def moved(n: int) -> Event:
    return Event.new("CarMoved", [Entity("Car", "CAR-1", {"n": n})])


def store(url: str, count: int) -> None:
    with Writer(Database(url)) as writer:
        writer.write_many(moved(n) for n in range(count))


def pages(proxy: PostgresProxy) -> int:
    return sum("entity_version > " in sql for sql in proxy.statements)


def test_a_stream_gives_every_event_that_touches_the_entity_in_version_order(
    open_transactor: OpenTransactor, url: str, tables: Tables
) -> None:
    event, other = workload_s.three_entities(), workload_s.car_created("CAR-2")
    exact = event.to_json().decode() + " "
    with Writer(Database(url)) as writer:
        for source in (exact, other, workload_s.car_created(), workload_s.car_created()):
            writer.write(source)
    found = list(open_transactor(url).stream("Car", "CAR-1"))
    assert [e.version for e in found] == [1, 2, 3]
    assert (found[0].event_id, found[0].data) == (event.id, exact)
    assert (found[0].event_name, found[0].event_type) == ("Loan Created", "LoanCreated")
    assert found[0].created_date is not None
    assert found[0].saved_date.tzinfo is not None
    assert [e.version for e in open_transactor(url).stream("Car", "CAR-1", after=2)] == [3]
    assert list(open_transactor(url).stream("Car", "nobody")) == []
    assert len(tables.events()) == 4


def test_a_thousand_events_are_read_in_pages_of_two_hundred(
    open_transactor: OpenTransactor, url: str, proxy: PostgresProxy
) -> None:
    store(url, 1_000)
    events = open_transactor(proxy.url).stream("Car", "CAR-1")
    assert [e.version for e in islice(events, 200)] == list(range(1, 201))
    assert pages(proxy) == 1
    assert [e.version for e in events] == list(range(201, 1_001))
    assert pages(proxy) == 6


def test_what_is_stored_while_reading_is_read_too(
    open_transactor: OpenTransactor, url: str
) -> None:
    store(url, 200)
    events = open_transactor(url).stream("Car", "CAR-1")
    first = [e.version for e in islice(events, 10)]
    store(url, 5)
    assert first + [e.version for e in events] == list(range(1, 206))


def test_big_events_come_in_smaller_pages(
    open_transactor: OpenTransactor, url: str, proxy: PostgresProxy
) -> None:
    big = [Entity("Car", "CAR-1", {"text": "x" * 900_000})]
    with Writer(Database(url)) as writer:
        for _ in range(7):
            writer.write(Event.new("CarMoved", big))
    events = open_transactor(proxy.url).stream("Car", "CAR-1")
    assert [e.version for e in events] == list(range(1, 8))
    assert pages(proxy) == 2


@pytest.mark.parametrize("cut", [False, True])
def test_a_page_that_fails_is_read_again(
    open_transactor: OpenTransactor, url: str, proxy: PostgresProxy, *, cut: bool
) -> None:
    store(url, 3)
    if cut:
        proxy.cut("mid_answer", matching="entity_version > ")
    else:
        proxy.refuse(1, matching="entity_version > ")
    events = open_transactor(proxy.url).stream("Car", "CAR-1")
    assert [e.version for e in events] == [1, 2, 3]
