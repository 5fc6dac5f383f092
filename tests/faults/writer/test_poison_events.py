"""One event that the server cannot take harms no other of its batch, whatever the SQLSTATE."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import errors
from tests.support.writer.callers import FORM, QUICK, Facts
from tests.support.writer.checked_tables import Outcome, Tables
from tests.support.writer.poison_events import POISON, poison, refuse_poison

from dsql_outbox.observability.facts import TransactionStarted
from dsql_outbox.outbox import Database, Entity, Event, OutcomeUnknown, Receipt
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

pytestmark = pytest.mark.postgres_only("a trigger plays the server's defect")

SHORT = replace(QUICK, max_outage=0.3, max_retries=4)

STATES = ["XX000", "08006", "40001", "42501", "57P01", "53300", "23505", "22012", "57014", "P0001"]
"""First those that differ most: in doubt, cut off, to be tried again, refused."""
IN_DOUBT = {"XX000", "57P01", "08006"}
FORMS = ["single", "plain"] if FORM == "auto" else [FORM]


def in_pairs(cases: Sequence[Any], quick: int) -> list[Any]:
    """Each case with one form of the writes, in turn; those after `quick` of them are slow."""
    return [
        pytest.param(FORMS[n % len(FORMS)], case, marks=[pytest.mark.slow] * (n >= quick))
        for n, case in enumerate(cases)
    ]


@pytest.fixture(params=FORMS)
def settings(request: pytest.FixtureRequest) -> WriterSettings:
    """Settings of each form of the writes."""
    return replace(SHORT, form=request.param)


@pytest.fixture
def poisoned(tables: Tables) -> Tables:
    """The tables; an event named ``poison XX000`` fails with XX000, when it is stored."""
    refuse_poison(tables)
    return tables


def batch(sqlstate: str, *poisoned: int, events: int = 24) -> list[Event]:
    """Events of 12 cars in turn; those at some places are poison."""
    names = [poison(sqlstate) if n in poisoned else "Car Sold" for n in range(events)]
    return [
        Event.new("CarSold", [Entity("Car", f"CAR-{n % 12}", {"n": n})], name=name)
        for n, name in enumerate(names)
    ]


def assert_only_poison_failed(
    tables: Tables, sqlstate: str, events: list[Event], outcomes: list[Outcome]
) -> None:
    receipts: dict[object, Receipt] = {}
    for event, outcome in zip(events, outcomes, strict=True):
        if not event.header.event_name.startswith(POISON):
            assert isinstance(outcome, Receipt), outcome
            receipts[event.id] = outcome
        elif sqlstate in IN_DOUBT:
            assert isinstance(outcome, OutcomeUnknown), outcome
        else:
            assert isinstance(outcome, psycopg.Error), outcome
            assert outcome.sqlstate == sqlstate
    tables.assert_true_to(receipts)  # type: ignore[arg-type]
    last: dict[str, int] = {}
    for receipt in receipts.values():
        (touched,) = receipt.entities
        assert touched.version > last.get(touched.entity_id, 0), "a subject's order"
        last[touched.entity_id] = touched.version


@asynccontextmanager
async def open_async(url: str, settings: WriterSettings) -> AsyncIterator[AsyncWriter]:
    async with AsyncWriter(Database(url, opens_per_second=10_000), settings) as writer:
        with anyio.fail_after(60):
            yield writer


@pytest.mark.parametrize(("settings", "sqlstate"), in_pairs(STATES, 4), indirect=["settings"])
def test_poison_in_write_many_fails_alone(
    poisoned: Tables, url: str, settings: WriterSettings, sqlstate: str
) -> None:
    events = batch(sqlstate, 7)
    with Writer(Database(url, opens_per_second=10_000), settings) as writer:
        outcomes = writer.write_many(events)
    assert_only_poison_failed(poisoned, sqlstate, events, outcomes)


@pytest.mark.anyio
@pytest.mark.parametrize("sqlstate", ["XX000", "P0001"])
async def test_poison_in_write_many_of_tasks_fails_alone(
    poisoned: Tables, url: str, settings: WriterSettings, sqlstate: str
) -> None:
    events = batch(sqlstate, 0, 13, 14, 23)
    async with open_async(url, settings) as writer:
        outcomes = await writer.write_many(events)
    assert_only_poison_failed(poisoned, sqlstate, events, outcomes)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("settings", "call"),
    in_pairs(
        [
            *[("XX000", 1), ("XX000", 4), ("40001", 4), ("42501", 1), ("08006", 1), ("57P01", 4)],
            *[("57P01", 1), ("08006", 4), ("53300", 1), ("23505", 4), ("22012", 1)],
            *[("57014", 4), ("P0001", 1)],
        ],
        5,
    ),
    indirect=["settings"],
)
async def test_poison_in_a_lane_fails_alone(
    poisoned: Tables, url: str, settings: WriterSettings, call: tuple[str, int]
) -> None:
    sqlstate, lanes = call
    events = batch(sqlstate, 5, 31, events=36)
    async with open_async(url, replace(settings, coalesce=lanes)) as writer:
        calls = [asyncio.create_task(writer.write(event)) for event in events]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert_only_poison_failed(poisoned, sqlstate, events, outcomes)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "settings",
    [FORMS[-1], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[:-1])],
    indirect=True,
)
async def test_innocents_of_little_patience_do_not_wait_for_poison_to_be_given_up(
    poisoned: Tables, url: str, settings: WriterSettings
) -> None:
    """The poison is tried for a minute; only the event behind it on its car waits as long."""
    events = batch("XX000", 5, events=12)
    patient = replace(settings, base=0.05, max_outage=60.0, coalesce=1)
    async with open_async(url, patient) as writer:
        calls = [asyncio.create_task(writer.write(event, timeout=5.0)) for event in events]
        poisoned_call = calls.pop(5)
        outcomes = await asyncio.gather(*calls)
        assert not poisoned_call.done()
        poisoned_call.cancel()
    poisoned.assert_true_to({receipt.event_id: receipt for receipt in outcomes})


def test_a_batch_in_which_all_fail_is_tried_less_than_twice_an_event(
    poisoned: Tables, url: str, settings: WriterSettings, facts: Facts
) -> None:
    events = batch("42501", *range(16), events=16)
    with Writer(Database(url, opens_per_second=10_000), settings, hooks=[facts]) as writer:
        outcomes = writer.write_many(events)
    assert all(isinstance(outcome, errors.InsufficientPrivilege) for outcome in outcomes)
    assert len(facts.of(TransactionStarted)) == 31
    assert poisoned.events() == []
