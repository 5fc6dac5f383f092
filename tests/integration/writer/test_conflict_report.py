"""The conflict report on real PostgreSQL: what it counts, and that it costs no write."""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import anyio
import pytest
from psycopg import errors
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, formed, in_background
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import ConflictsUnstored
from dsql_outbox.operations import ConflictReader
from dsql_outbox.operations.conflicts import ConflictReport, ContendedEntity
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.unit_of_work import gate
from dsql_outbox.testing import PostgresProxy
from dsql_outbox.writer import AsyncWriter, Writer
from dsql_outbox.writer.conflicts import conflict_log

TABLE = "outbox_conflicts"
ALWAYS = replace(QUICK, conflict_report=1e-9)


class Clock:
    """The clock of reports: the real one, and what the test adds."""

    added = 0.0

    def __call__(self) -> float:
        return monotonic() + self.added


@pytest.fixture(autouse=True)
def new_counts() -> None:
    """Forget what other tests counted on the same tables."""
    conflict_log.shared_counts.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(conflict_log, "monotonic", clock)
    return clock


def report_of(url: str, hours: float = 1.0) -> ConflictReport:
    async def read() -> ConflictReport:
        async with ConflictReader(Database(url)) as reader:
            return await reader.read(hours=hours)

    return anyio.run(read)


def by_name(report: ConflictReport) -> dict[str, ContendedEntity]:
    return {f"{entity.entity_type}/{entity.entity_id}": entity for entity in report.entities}


def reports(proxy: PostgresProxy) -> int:
    """How many reports were stored by way of the proxy."""
    return sum(f'INSERT INTO "outbox".{TABLE}' in statement for statement in proxy.statements)


def test_a_closed_writer_has_told_what_conflicted_and_what_it_cost(
    open_writer: OpenWriter, proxy: PostgresProxy
) -> None:
    caller = open_writer(proxy.url, replace(QUICK, base=0.02, max_retries=2))
    caller.write(workload_s.car_created())
    proxy.refuse(2)
    caller.write(workload_s.car_created())
    proxy.refuse(3)
    with pytest.raises(errors.SerializationFailure):
        caller.write(workload_s.three_entities())
    assert reports(proxy) == 0
    caller.close()
    report = report_of(proxy.url)
    assert (report.writers, report.transactions, report.exhausted) == (1, 5, 1)
    assert not report.is_partial
    assert report.lost_seconds >= 2 * (0.02 + 0.04)
    car, loan = by_name(report)["Car/CAR-1"], by_name(report)["Loan/LOAN-1"]
    assert report.entities[0] == car
    assert (car.conflicts, car.alone, car.joint, car.exhausted) == (5, 2, 3, 1)
    assert (loan.conflicts, loan.alone, loan.joint, loan.exhausted) == (3, 0, 3, 1)
    assert (car.behind, loan.behind) == (0, 3)
    assert car.lost_seconds == report.lost_seconds > loan.lost_seconds >= 0.06
    assert 0 <= car.seen_seconds < 20
    assert (car.remedy, loan.remedy) == ("separate", "none")


def test_a_real_conflict_is_seen(url: str, tables: Tables) -> None:
    """Another session changes the entity while the write waits for it."""
    database = Database(url, isolation="repeatable read")
    with Writer(database, QUICK) as writer:
        writer.write(workload_s.car_created())
        with Tables(url) as other, other.connection.transaction():
            other.execute("UPDATE outbox.entities SET updated_at = updated_at")
            late = in_background(lambda: writer.write(workload_s.car_created()))
            wait_until(lambda: tables.blocked() == 1)
        assert late.result(20).conflicts == 1  # type: ignore[union-attr]
    (car,) = report_of(url).entities
    assert (car.entity_id, car.conflicts, car.alone, car.remedy) == ("CAR-1", 1, 1, "coalesce")


def test_batches_runs_and_coalesced_writes_count_too(proxy: PostgresProxy) -> None:
    cars = [workload_s.car_created(f"CAR-{n}") for n in range(2)]

    async def conflict(settings: Any, act: Callable[[AsyncWriter], Any], *, times: int = 1) -> None:
        async with AsyncWriter(Database(proxy.url), formed(settings)) as writer:
            await writer.entity("Car", "CAR-0")
            proxy.refuse(times)
            await act(writer)

    async def run(tx: Any) -> None:
        await tx.append(workload_s.loan_created(7))

    async def fail(tx: Any) -> None:
        await run(tx)
        raise errors.SerializationFailure("of another database")

    async def all_ways() -> None:
        await conflict(QUICK, lambda writer: writer.write_many(cars))
        await conflict(QUICK, lambda writer: writer.transact(run))
        with pytest.raises(errors.SerializationFailure):
            await conflict(QUICK, lambda writer: writer.transact(fail), times=0)
        coalescing = replace(QUICK, coalesce=1)
        await conflict(coalescing, lambda writer: writer.write(workload_s.service_done(3)))

    anyio.run(all_ways)
    found = by_name(report_of(proxy.url))
    first, second = found["Car/CAR-0"], found["Car/CAR-1"]
    assert (first.conflicts, first.alone, first.joint, first.remedy) == (1, 0, 0, "coalesce")
    assert second.conflicts == 1
    loan, service = found["Loan/LOAN-7"], found["ServiceRecord/SERVICE-3"]
    assert (loan.conflicts, loan.transact, loan.remedy) == (1, 1, "reorder")
    assert (service.conflicts, service.coalesced, service.remedy) == (1, 1, "split")


def test_only_news_are_stored_and_once_an_interval(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, clock: Clock
) -> None:
    callers = [open_writer(proxy.url, replace(QUICK, conflict_report=10.0)) for _ in range(2)]

    def write(*, conflicts: int = 0) -> int:
        for caller in callers * 2:
            if conflicts:
                proxy.refuse(conflicts)
            caller.write(workload_s.car_created())
        return reports(proxy)

    clock.added = 100.0
    assert write() == 0
    assert write(conflicts=1) == 0
    clock.added = 111.0
    assert write() == 1
    clock.added = 122.0
    assert write() == 1
    assert write(conflicts=1) == 2
    (row,) = tables.execute("SELECT report->>'transactions' AS found FROM outbox.outbox_conflicts")
    assert row == {"found": "5"}  # the four of before, and the one that was seen first
    for caller in callers:
        caller.close()
    assert reports(proxy) == 3, "the second has no news"


def test_another_hour_is_another_row_and_old_rows_are_deleted(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, clock: Clock
) -> None:
    tables.execute(
        "INSERT INTO outbox.outbox_conflicts SELECT gen_random_uuid(),"
        " clock_timestamp() - n * interval '1 hour', '{\"transactions\": 1}'"
        " FROM unnest(ARRAY[0, 3, 25]) AS n"
    )
    tables.execute(
        "INSERT INTO outbox.outbox_conflicts VALUES (gen_random_uuid(), clock_timestamp(), '[]')"
    )
    caller = open_writer(proxy.url, ALWAYS)
    for _ in range(2):
        proxy.refuse(1)
        caller.write(workload_s.car_created())
        clock.added += 4000.0
    proxy.refuse(1)
    caller.write(workload_s.car_created())
    assert report_of(proxy.url).transactions == 1 + 3
    assert report_of(proxy.url, hours=24).transactions == 2 + 3
    (row,) = tables.execute("SELECT count(*) AS rows FROM outbox.outbox_conflicts")
    assert row == {"rows": 3 + 2}


@pytest.mark.parametrize("conflict_report", [None, 1e-9])
def test_without_a_table_it_tells_once_and_switched_off_never(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    tables: Tables,
    facts: Facts,
    conflict_report: float | None,
) -> None:
    tables.execute("DROP TABLE outbox.outbox_conflicts")
    caller = open_writer(proxy.url, replace(QUICK, conflict_report=conflict_report), [facts])
    written = {}
    for _ in range(3):
        proxy.refuse(1)
        receipt = caller.write(workload_s.car_created())
        written[receipt.event_id] = receipt
    caller.close()
    open_writer(proxy.url, ALWAYS, [facts]).close()  # of the same process, so of the same counts
    expected = [ConflictsUnstored("UndefinedTable", "42P01", switched_off=True)]
    assert facts.of(ConflictsUnstored) == (expected if conflict_report else [])
    assert reports(proxy) == len(facts.of(ConflictsUnstored))
    tables.assert_true_to(written)


def test_an_answer_that_does_not_come_holds_one_write_for_a_moment(
    open_writer: OpenWriter,
    proxy: PostgresProxy,
    facts: Facts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "LONGEST_HOUSEKEEPING", 0.2)
    caller = open_writer(proxy.url, ALWAYS, [facts])
    proxy.stall(matching=TABLE)
    proxy.refuse(1)
    began = monotonic()
    assert caller.write(workload_s.car_created()).conflicts == 1
    assert 0.2 <= monotonic() - began < 5.0
    (fact,) = facts.of(ConflictsUnstored)
    assert (fact.error, fact.switched_off) == ("OperationalError", False)
    caller.write(workload_s.car_created())
    assert report_of(proxy.url).transactions == 1
