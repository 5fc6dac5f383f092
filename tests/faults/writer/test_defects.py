"""A defect of our own code meets a write that is stored: nobody is told that it is not."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest
from tests.support.writer import workload_s
from tests.support.writer.callers import FORM, QUICK, Facts, OpenWriter, outcome_of
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import OpenTransactor, ids, open_transactor, own

from dsql_outbox.observability.facts import AttemptEnded, Fact, WriteEnded
from dsql_outbox.outbox import Database, OutcomeUnknown, Receipt
from dsql_outbox.outbox.unit_of_work import commit
from dsql_outbox.writer import AsyncWriter, Writer
from dsql_outbox.writer.attempt import acts
from dsql_outbox.writer.statement import write_statements

pytestmark = pytest.mark.client

__all__ = ["open_transactor", "own"]

READS = "stored_events"
DEFECTS = [
    TypeError("a version is no number"),
    KeyError("position"),
    msgspec.ValidationError("expected `int`"),
    psycopg.DataError("date too large"),
    psycopg.ProgrammingError("the last operation didn't produce records"),
    ValueError("change conflicts with another transaction (OC000)"),
]


class Defect:
    """Breaks a function: `times` calls of it raise `error` in place of an answer."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Exception, times: int = 1) -> None:
        self._patch = patch
        self._error = error
        self._left = times

    def breaks(self, owner: object, name: str) -> None:
        self._patch.setattr(owner, name, partial(self._call, getattr(owner, name)))

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._left:
            self._left -= 1
            raise self._error
        return function(*args)


@pytest.mark.parametrize("error", DEFECTS, ids=lambda error: type(error).__name__)
def test_a_defect_in_reading_the_answer_ends_as_a_receipt(
    open_writer: OpenWriter,
    tables: Tables,
    url: str,
    facts: Facts,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    defect = Defect(monkeypatch, error)
    defect.breaks(write_statements, READS)
    receipt = open_writer(url, hooks=[facts]).write(workload_s.car_created())
    assert (receipt.status, receipt.attempts, receipt.conflicts) == ("committed", 2, 0)
    assert [fact.outcome for fact in facts.of(AttemptEnded)] == ["in_doubt", "resolved"]
    tables.assert_true_to({receipt.event_id: receipt})


def test_a_defect_in_reading_the_look_up_as_well_ends_as_unknown(
    open_writer: OpenWriter, tables: Tables, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((write_statements, READS), (acts, "found_events")):
        Defect(monkeypatch, TypeError("no row"), 99).breaks(module, name)
    event = workload_s.car_created()
    error = outcome_of(partial(open_writer(url).write, event))
    assert isinstance(error, OutcomeUnknown), error
    assert isinstance(error.__cause__, TypeError)
    assert len(tables.events(event.id)) == 1


def test_a_defect_before_anything_is_sent_reaches_the_caller_as_it_is(
    open_writer: OpenWriter, tables: Tables, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, defect = open_writer(url), TypeError("no parameter")
    name = "transaction" if FORM == "plain" else "single"
    core = (getattr(writer, "_writer", None) or writer)._core  # type: ignore[attr-defined]
    Defect(monkeypatch, defect).breaks(core.statements, name)
    event = workload_s.car_created()
    assert outcome_of(partial(writer.write, event)) is defect
    assert tables.events(event.id) == []


@pytest.mark.parametrize("told", [AttemptEnded, WriteEnded])
@pytest.mark.parametrize("coalesce", [0, 1])
@pytest.mark.anyio
async def test_a_hook_that_raises_after_the_commit_makes_no_lie(
    url: str, tables: Tables, told: type[Fact], coalesce: int
) -> None:
    def hook(fact: Fact) -> None:
        if isinstance(fact, told):
            raise ZeroDivisionError

    settings = replace(QUICK, coalesce=coalesce, form=FORM)  # type: ignore[arg-type]
    async with AsyncWriter(Database(url), settings, hooks=[hook]) as writer:
        event = workload_s.car_created()
        try:
            outcome: Receipt | Exception = await writer.write(event)
        except OutcomeUnknown as unknown:
            outcome = unknown
    expected = Receipt if told is WriteEnded else OutcomeUnknown
    assert isinstance(outcome, expected), outcome
    assert len(tables.events(event.id)) == 1


@pytest.mark.parametrize("error", DEFECTS, ids=lambda error: type(error).__name__)
def test_a_defect_after_the_commit_of_a_transaction_returns_what_the_run_returned(
    open_transactor: OpenTransactor,
    own: Tables,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    Defect(monkeypatch, error).breaks(commit, "require_committed")
    receipt = open_transactor(url).transact(lambda work: work.append(work.new_event()))
    assert (receipt.status, receipt.attempts) == ("committed", 1)
    assert ids(own) == {receipt.event_id}


def test_a_hook_that_raises_after_a_transactions_commit_takes_nothing_back(
    own: Tables, url: str
) -> None:
    def hook(fact: Fact) -> None:
        if isinstance(fact, AttemptEnded):
            raise ZeroDivisionError

    with Writer(Database(url), QUICK, hooks=[hook]) as writer:
        receipt = writer.transact(lambda tx: tx.append(workload_s.car_created()))
    assert ids(own) == {receipt.event_id}
