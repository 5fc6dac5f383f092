"""Connections of psycopg2 as their callers set them up, and what its client-side binding means."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from tests.support.driver_sessions import engine_url
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, formed, only_single
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.outbox import Database, Entity, Event, EventTooLarge
from dsql_outbox.writer import Writer

__all__ = ["own"]

pytestmark = pytest.mark.client

ROW = "INSERT INTO own VALUES (1)"
SECRET = "payload-7f3a"


@pytest.fixture
def writer(url: str) -> Iterator[Writer]:
    """A writer."""
    with Writer(Database(url), formed(QUICK)) as writer:
        yield writer


def cursor_factories() -> list[Any]:
    extras = psycopg2.extras
    return [extras.RealDictCursor, extras.DictCursor, extras.NamedTupleCursor]


@pytest.mark.parametrize("factory", cursor_factories())
def test_a_connection_with_cursors_of_its_own_takes_events(
    own: Tables, url: str, writer: Writer, factory: Any
) -> None:
    with psycopg2.connect(url, cursor_factory=factory) as mine:
        number = psycopg2.extensions.new_type((20,), "AS_TEXT", lambda value, _: value)
        psycopg2.extensions.register_type(number, mine)
        receipts = [
            writer.append_to(mine, event)
            for event in (workload_s.car_created(), workload_s.three_entities())
        ]
    mine.close()
    own.assert_true_to({receipt.event_id: receipt for receipt in receipts})


def test_a_connection_that_logs_its_statements_logs_no_payload(
    own: Tables, url: str, writer: Writer
) -> None:
    log = StringIO()
    mine = psycopg2.connect(url, connection_factory=psycopg2.extras.LoggingConnection)
    mine.initialize(log)
    receipt = writer.append_to(mine, _event(SECRET))
    mine.commit()
    mine.close()
    assert SECRET not in log.getvalue()
    own.assert_true_to({receipt.event_id: receipt})


def test_quotes_backslashes_and_percents_are_stored_as_they_are(
    own: Tables, url: str, writer: Writer
) -> None:
    text = "it's 100%, %(data)s, \\'; DROP TABLE own; -- \u20ac"
    with psycopg2.connect(url) as mine:
        receipt = writer.append_to(mine, _event(text))
    mine.close()
    own.assert_true_to({receipt.event_id: receipt})
    (row,) = own.execute(
        "SELECT event_data -> 'entities' -> 0 ->> 'note' AS note FROM outbox.business_events"
    )
    assert row["note"] == text


@pytest.mark.postgres_only("DSQL knows UTF-8 alone")
def test_a_text_that_the_encoding_lacks_is_refused(own: Tables, url: str, writer: Writer) -> None:
    mine = psycopg2.connect(url)
    mine.set_client_encoding("LATIN1")
    mine.cursor().execute(ROW)
    with pytest.raises(UnicodeEncodeError) as raised:
        writer.append_to(mine, _event(f"{SECRET}\u20ac"))
    assert SECRET not in str(raised.value)
    mine.commit()
    mine.close()
    assert (own_rows(own), ids(own)) == (0, set())


@only_single("a statement of the plain form has the event once")
@pytest.mark.parametrize("through", ["psycopg2", "SQLAlchemy"])
def test_an_event_that_binding_makes_too_large_is_refused(
    own: Tables, url: str, writer: Writer, through: str
) -> None:
    """Each place of the event in the statement has a copy, in which a quote takes two bytes."""
    fits, too_large = _event("'" * 300_000), _event("'" * 900_000)
    engine = create_engine(engine_url(url, "psycopg2"), poolclass=NullPool)
    mine: Any = psycopg2.connect(url) if through == "psycopg2" else Session(engine)
    receipt = writer.append_to(mine, fits)
    mine.commit()
    with pytest.raises(EventTooLarge, match="as psycopg2 sends it"):
        writer.append_to(mine, too_large)
    mine.commit()
    mine.close()
    own.assert_true_to({receipt.event_id: receipt})
    assert ids(own) == {fits.id}


class Traced:
    """A proxy as tracers put it around a connection."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    @property
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


def test_a_connection_in_the_proxy_of_a_tracer_takes_events(
    own: Tables, url: str, writer: Writer
) -> None:
    mine = Traced(psycopg2.connect(url))
    receipt = writer.append_to(mine, workload_s.car_created())
    with pytest.raises(ValueError, match="expected_version"):
        writer.append_to(mine, workload_s.car_created(), expected_version=-1)
    mine.rollback()
    assert ids(own) == set()
    receipt = writer.append_to(mine, workload_s.car_created())
    mine.commit()
    mine.close()
    assert ids(own) == {receipt.event_id}


def test_an_asynchronous_connection_is_refused(url: str, writer: Writer) -> None:
    mine = psycopg2.connect(url, async_=True)
    psycopg2.extras.wait_select(mine)
    with pytest.raises(TypeError, match=r"async_"):
        writer.append_to(mine, workload_s.car_created())
    mine.close()


def test_a_savepoint_and_autocommit_that_was_left_are_transactions(
    own: Tables, url: str, writer: Writer
) -> None:
    mine = psycopg2.connect(url)
    mine.autocommit = True
    cursor = mine.cursor()
    cursor.execute("BEGIN")
    receipt = writer.append_to(mine, workload_s.car_created())
    cursor.execute("COMMIT")
    mine.close()
    assert ids(own) == {receipt.event_id}


def _event(text: str) -> Event:
    return Event.new("CarSold", [Entity("Car", "CAR-1", {"note": text})])
