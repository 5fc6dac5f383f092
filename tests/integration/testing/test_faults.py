"""`Faults`: what is asked for happens to the next write, on each way to the database."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest
from sqlalchemy import text
from tests.support.writer import workload_s
from tests.support.writer.callers import OpenWriter
from tests.support.writer.checked_tables import Tables
from tests.support.writer.session_transacts import OpenDoor, driver, new_event, open_door
from tests.support.writer.transacts import ids, own, own_rows

from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.testing import Faults
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings
from dsql_outbox.writer.tuned_settings import TunedSettings

__all__ = ["driver", "open_door", "own"]


@pytest.fixture
def faults() -> Iterator[Faults]:
    with Faults() as faults:
        yield faults


def one_event(tables: Tables) -> None:
    (row,) = tables.execute("SELECT count(*) AS stored FROM outbox.business_events")
    assert row == {"stored": 1}


@pytest.mark.parametrize("form", ["single", "plain"])
def test_a_write_meets_conflicts_and_a_lost_answer_and_is_stored_once(
    url: str, tables: Tables, faults: Faults, form: Any
) -> None:
    with Writer(Database(url), TunedSettings(form=form)) as writer:
        faults.conflicts(2)
        faults.lost_commit()
        receipt = writer.write(workload_s.car_created())
        assert (receipt.attempts, receipt.conflicts) == (4, 2)
        one_event(tables)
        assert writer.write(workload_s.car_created()).attempts == 1


def test_a_refusal_ends_a_write_with_its_error(url: str, tables: Tables, faults: Faults) -> None:
    faults.refuse(sqlstate="23514", message="refused")
    with Writer(Database(url)) as writer:
        with pytest.raises(psycopg.errors.CheckViolation, match="refused"):
            writer.write(workload_s.car_created())
        assert tables.execute("SELECT FROM outbox.business_events") == []
        assert writer.write(workload_s.car_created()).attempts == 1


def test_batches_and_group_commit_meet_them_too(url: str, faults: Faults) -> None:
    async def write() -> None:
        async with AsyncWriter(Database(url), WriterSettings(coalesce=1)) as writer:
            faults.conflicts()
            assert (await writer.write(workload_s.car_created())).conflicts == 1
            faults.lost_commit()
            (end,) = await writer.write_many([workload_s.car_created()])
            assert isinstance(end, Receipt)
            assert end.attempts == 2

    anyio.run(write)


def test_the_function_of_a_transact_runs_again(url: str, own: Tables, faults: Faults) -> None:
    runs = []

    def insert(transaction: Any) -> None:
        runs.append(1)
        transaction.connection.execute("INSERT INTO own VALUES (1)")
        transaction.append(workload_s.car_created())

    with Writer(Database(url)) as writer:
        faults.conflicts()
        faults.lost_commit()
        writer.transact(insert)
    assert (own_rows(own), len(ids(own))) == (1, 1)
    assert len(runs) == 2, "once for the conflict; the lost one is found out"


@pytest.mark.postgres_only("the sessions of these callers pass the endpoint by")
def test_a_session_of_ones_own_meets_them(
    open_door: OpenDoor, url: str, own: Tables, faults: Faults
) -> None:
    door = open_door(url)

    def insert(session: Any, append: Callable[..., Receipt]) -> None:
        session.execute(text("INSERT INTO own VALUES (1)"))
        append(new_event())

    faults.conflicts()
    faults.lost_commit()
    door.transact(insert)
    assert (own_rows(own), len(ids(own))) == (1, 1)


def test_a_consumer_meets_them(url: str, own: Tables, faults: Faults) -> None:
    message = uuid4()
    with Inbox(Database(url), "billing") as inbox:
        faults.conflicts()
        faults.lost_commit()
        handled = inbox.once(
            message, lambda connection: connection.execute("INSERT INTO own VALUES (1)").rowcount
        )
        assert handled.ran
        assert not inbox.once(message, lambda _: 2).ran
    assert own_rows(own) == 1


def test_outside_of_the_block_nothing_happens(open_writer: OpenWriter, url: str) -> None:
    with Faults() as faults:
        faults.conflicts(9)
        with pytest.raises(RuntimeError, match="another Faults is active"), Faults():
            pass
    assert open_writer(url).write(workload_s.car_created()).attempts == 1
