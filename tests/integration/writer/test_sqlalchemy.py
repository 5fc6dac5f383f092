"""Events in a SQLAlchemy session's transaction, as docs/transactions.md shows it."""

import threading
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.support.writer import workload_s
from tests.support.writer.callers import TIMEOUT, Running
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.outbox import Database, is_retryable
from dsql_outbox.writer import Writer

__all__ = ["own"]


def engine_of(url: str) -> Any:
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="REPEATABLE READ"
    )


def test_an_append_is_part_of_the_sessions_transaction(own: Tables, url: str) -> None:
    engine = engine_of(url)
    with Writer(Database(url)) as writer:
        for commit in (True, False):
            with Session(engine) as session:
                session.execute(text("INSERT INTO own VALUES (1)"))
                driver = session.connection().connection.driver_connection
                writer.append_to(driver, event := workload_s.car_created())
                if commit:
                    session.commit()
                    kept = event.id
    engine.dispose()
    assert (own_rows(own), ids(own)) == (1, {kept})


def test_two_sessions_in_conflict_and_the_loser_runs_its_block_again(own: Tables, url: str) -> None:
    engine, barrier = engine_of(url), threading.Barrier(2, timeout=TIMEOUT)
    retried: list[Exception] = []

    def block(car: str) -> None:
        event, first = workload_s.car_created(car), True
        while True:
            try:
                with Session(engine) as session, session.begin():
                    old = session.scalar(text("SELECT n FROM own"))
                    if first:
                        first = False
                        barrier.wait()
                    session.execute(text("UPDATE own SET n = :n"), {"n": old + 1})
                    driver = session.connection().connection.driver_connection
                    writer.append_to(driver, event)
            except DBAPIError as error:
                if not is_retryable(error):
                    raise
                retried.append(error)
            else:
                return

    with Writer(Database(url)) as writer:
        Running([lambda: block("CAR-1"), lambda: block("CAR-2")]).results(TIMEOUT)
    engine.dispose()
    assert len(retried) == 1
    assert own.execute("SELECT n FROM own") == [{"n": 2}]
    assert len(ids(own)) == 2
    own.assert_consistent()


def test_a_lost_connection_is_not_certain_enough_to_be_retried(own: Tables, url: str) -> None:
    engine = engine_of(url)
    with Session(engine) as session:
        session.execute(text("INSERT INTO own VALUES (1)"))
        own.hang_up_all()
        with pytest.raises(DBAPIError) as raised:
            session.commit()
    engine.dispose()
    assert not is_retryable(raised.value)
