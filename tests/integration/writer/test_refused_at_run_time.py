"""A server that plans the single form of a write, and refuses to run it on rows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from tests.support.writer import refusing_server, workload_s
from tests.support.writer.callers import QUICK
from tests.support.writer.checked_tables import Tables

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.writer import Writer
from dsql_outbox.writer.tuned_settings import TunedSettings

AUTO: TunedSettings = replace(QUICK, form="auto", coalesce=0, backlog_check=None)
NUMBER = 7


@pytest.fixture(params=["42804", "0A000", "42601"])
def refused(request: pytest.FixtureRequest, tables: Tables) -> Iterator[str]:
    """The SQLSTATE by which statements that begin with WITH are refused, as an EXPLAIN is not."""
    refusing_server.refuse(tables.execute, request.param)
    yield request.param
    refusing_server.accept(tables.execute)


def write(writer: Writer) -> list[Any]:
    return [writer.write(workload_s.car_created(f"CAR-{n}")) for n in range(NUMBER)]


def write_many(writer: Writer) -> list[Any]:
    return writer.write_many([workload_s.three_entities() for _ in range(NUMBER)])


def transact(writer: Writer) -> list[Any]:
    events = [workload_s.car_created(f"CAR-{n}") for n in range(NUMBER)]
    return writer.transact(lambda transaction: [transaction.append(event) for event in events])


@pytest.mark.parametrize("call", [write, write_many, transact])
def test_all_events_are_stored_in_the_form_that_works(
    refused: str, url: str, tables: Tables, call: Callable[[Writer], list[Any]]
) -> None:
    assert refused
    with Writer(Database(url), AUTO) as writer:
        outcomes = call(writer)
    assert {type(outcome) for outcome in outcomes} == {Receipt}
    assert {outcome.conflicts for outcome in outcomes} == {0}
    assert len(tables.events()) == NUMBER
    tables.assert_consistent()


def test_the_next_append_to_has_the_form_that_works(refused: str, url: str, tables: Tables) -> None:
    event = workload_s.car_created()
    with Writer(Database(url), AUTO) as writer, psycopg.connect(url) as connection:
        with pytest.raises(psycopg.Error) as raised:
            writer.append_to(connection, event)
        assert raised.value.sqlstate == refused
        connection.rollback()
        writer.append_to(connection, event)
        connection.commit()
    assert [row["id"] for row in tables.events()] == [event.id]


def test_a_form_that_was_asked_for_is_kept(refused: str, url: str, tables: Tables) -> None:
    with (
        Writer(Database(url), replace(AUTO, form="single")) as writer,
        pytest.raises(psycopg.Error) as raised,
    ):
        writer.write(workload_s.car_created())
    assert raised.value.sqlstate == refused
    assert tables.events() == []


def test_an_event_that_is_refused_in_both_forms_leaves_the_form_as_it_was(
    url: str, tables: Tables
) -> None:
    refusing_server.refuse(tables.execute, "0A000", applies="IS NOT NULL OR '' ~")
    with Writer(Database(url), AUTO) as writer:
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            writer.write(workload_s.car_created())
        refusing_server.accept(tables.execute)
        assert not writer._core.statements.is_plain
        assert isinstance(writer.write(workload_s.car_created()), Receipt)


def test_doctor_fails_and_says_which_form_works(url: str, tables: Tables) -> None:
    refusing_server.refuse(tables.execute, "42804")
    done = CliRunner().invoke(main, ["doctor", "--probe", "--database", url])
    refusing_server.accept(tables.execute)
    assert done.exit_code == 1
    (line,) = [line for line in done.stdout.splitlines() if "modifying CTE" in line]
    assert line.startswith("fail")
    assert "refused with 42804, and the plain form works" in line
