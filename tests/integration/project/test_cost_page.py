"""What docs/cost.md says an event and an idle hour cost: statements, rows and bytes counted here.

The prices and formulas are Aurora DSQL's as published; no cluster takes part.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import mean
from typing import Final, LiteralString

import anyio
import pytest
from tests.support.checkout import ROOT
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.publisher.running_relays import patient_beats
from tests.support.waiting import wait_until
from tests.support.writer.checked_tables import Tables

from dsql_outbox.operations.health_probe import EVERY
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.outbox.settings import DEFAULT_SHARDS
from dsql_outbox.publisher import Publisher, PublisherSettings, tuned_settings
from dsql_outbox.publisher.relay import reader
from dsql_outbox.publisher.relay.reader import _REFRESH as REFRESH
from dsql_outbox.publisher.settings import DSQL_IDLE_MAX, IDLE_MAX
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

__all__ = ["patient_beats"]

pytestmark = pytest.mark.anyio

PAGE: Final = (ROOT / "docs" / "cost.md").read_text()
READ, WRITE = 0.00000183105, 0.00004883  # DPU a byte
LEAST_ROW, LEAST_READ, LEAST_WRITE = 128, 2048, 1024  # bytes; the last two a transaction
READ_CPU, WRITE_CPU = 0.003, 0.008  # seconds of a statement, assumed: a second is a DPU
DOLLARS_A_MILLION: Final = 8.0  # DPU
DOLLARS_A_GIGABYTE: Final = 0.33  # and month

EVENT_BYTES: Final = 1024
CREATED: Final = datetime(2026, 11, 25, 8, 14, 7, tzinfo=UTC)
DEFAULTS: Final = TunedSettings(idle_max=DSQL_IDLE_MAX)
NEAR: Final = 0.02
"""Rows differ by some bytes from run to run: a fraction of a second may have fewer digits."""

TABLES: Final = ("business_events", "event_headers", "entities", "outbox")
CHANGES: LiteralString = """SELECT relname, n_tup_ins, n_tup_upd, n_tup_del
    FROM pg_stat_user_tables WHERE schemaname = 'outbox'"""
INDEXES: LiteralString = """SELECT count(*) AS n FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname = 'outbox' AND NOT i.indisprimary AND c.relname <> 'dead_letters'"""
SIZES: LiteralString = """
    SELECT 'business_events' AS name, pg_column_size(t) AS size FROM outbox.business_events t
    UNION ALL SELECT 'event_headers', pg_column_size(t) FROM outbox.event_headers t
    UNION ALL SELECT 'entities', pg_column_size(t) FROM outbox.entities t
    UNION ALL SELECT 'outbox', pg_column_size(t) FROM outbox.outbox t
    UNION ALL SELECT 'outbox_leases', pg_column_size(t) FROM outbox.outbox_leases t
    UNION ALL SELECT 'outbox_publishers', pg_column_size(t) FROM outbox.outbox_publishers t"""

BEAT: Final = "keep the leases"
KINDS: Final = {
    "read": "AS predecessor",
    "delete": 'DELETE FROM "outbox".outbox o',
    "beat": "Keep leases for longer, announce",
    "topics": "the topics that an operator has paused",
}


@dataclass(frozen=True)
class Cost:
    """Of one statement in a transaction of its own: bytes, and DPU by the published formulas.

    `written_bytes` counts each row for its least already.
    """

    read_bytes: int
    written_bytes: int = 0

    @property
    def read(self) -> float:
        return max(self.read_bytes, LEAST_READ) * READ

    @property
    def write(self) -> float:
        return max(self.written_bytes, LEAST_WRITE) * WRITE if self.written_bytes else 0.0

    @property
    def cpu(self) -> float:
        return WRITE_CPU if self.written_bytes else READ_CPU

    @property
    def total(self) -> float:
        return self.read + self.write + self.cpu


def event(n: int, entities: int = 1) -> Event:
    """An event of exactly `EVENT_BYTES`."""

    def made(fill: int) -> Event:
        first = Entity("Loan", f"LOAN-{n:06}", {"balance": "9000.00", "note": "x" * fill})
        others = [Entity("Car", f"CAR-{n:06}-{k}", {"financed": True}) for k in range(1, entities)]
        return Event.new("LoanCreated", [first, *others], name="Loan Created", created_date=CREATED)

    short = len(made(0).to_json())
    found = made(EVENT_BYTES - short)
    assert len(found.to_json()) == EVENT_BYTES
    return found


def table(name: str) -> dict[str, list[str]]:
    """A table of the page by the heading above it: first cell to the others."""
    section = PAGE.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def said(pattern: str) -> list[str]:
    """The numbers of a sentence of the page."""
    found = re.search(pattern.replace(" ", r"\s+"), PAGE)
    assert found, pattern
    return list(found.groups())


def number(cell: str) -> float:
    return float(cell.replace(",", "").replace("$", ""))


def changed(tables: Tables) -> Counter[str]:
    """Rows inserted, updated and deleted so far; all others have to have left, to be counted."""
    wait_until(lambda: tables.others() == 0)
    counts: Counter[str] = Counter()
    for row in tables.execute(CHANGES):
        for change in ("ins", "upd", "del"):
            counts[f"{row['relname']} {change}"] = row[f"n_tup_{change}"]
    return counts


def sizes(tables: Tables, *names: str) -> list[int]:
    """Bytes of each row of some tables, as PostgreSQL keeps it, uncompressed."""
    return [row["size"] for row in tables.execute(SIZES) if row["name"] in names]


def metered(found: list[int]) -> int:
    return sum(max(size, LEAST_ROW) for size in found)


def per_event(costs: Sequence[Cost], rows: int, events: int) -> list[float]:
    """A line of the page's first table."""
    total = sum(each.total for each in costs)
    amounts = [rows, sum(each.written_bytes for each in costs), total, total * DOLLARS_A_MILLION]
    return [amount / events for amount in amounts]


def agrees(found: Sequence[str], expected: Sequence[float]) -> None:
    """The page's cells are the numbers counted here."""
    said = ", ".join(f"{value:.4g}" for value in expected)
    assert [number(cell) for cell in found] == pytest.approx(expected, rel=NEAR, abs=1e-5), said


def kinds(statements: Sequence[str]) -> Counter[str]:
    """How often each statement ran; another one goes by its text.

    A read on PostgreSQL has settings before it, which Aurora DSQL does not take.
    """
    return Counter(
        next((kind for kind, part in KINDS.items() if part in text), text)
        for text in statements
        if "set_config('plan_cache_mode'" not in text
    )


@pytest.mark.parametrize(
    ("line", "events"),
    [
        ("write, 1 entity", [event(1)]),
        ("write, 3 entities", [event(1, 3)]),
        ("`write_many` of 100, each", [event(n) for n in range(100)]),
    ],
    ids=["one", "three", "batch"],
)
def test_what_a_written_event_costs_is_on_the_page(
    line: str, events: list[Event], tables: Tables, proxy: PostgresProxy
) -> None:
    before = changed(tables)
    with Writer(Database(proxy.url)) as writer:
        writer.write(event(999_999))  # the first event of a process asks for the shards too
        first = sizes(tables, *TABLES)
        proxy.reset_counts()
        stored = writer.write_many(events) if len(events) > 1 else [writer.write(events[0])]
        assert not [each for each in stored if isinstance(each, Exception)]
        assert proxy.round_trips == len(proxy.statements) == 1
    changes = changed(tables) - before
    assert not [change for change in changes if not change.endswith("ins")]
    rows = changes.total() - len(first)
    written = sizes(tables, *TABLES)
    assert len(written) == rows + len(first)
    # Each key is looked up: of an entity to change it, of other rows to tell that they are new.
    one = Cost(rows * LEAST_ROW, metered(written) - metered(first))
    agrees(table("An event")[line], per_event([one], rows, len(events)))


@pytest.mark.parametrize(
    ("line", "waiting"), [("relay, one alone", 1), ("relay, a batch of 500, each", 2_000)]
)
async def test_what_a_relayed_event_costs_is_on_the_page(
    line: str,
    waiting: int,
    url: str,
    tables: Tables,
    proxy: PostgresProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Writer(Database(url)) as writer:
        writer.write_many([event(n) for n in range(waiting)])
    size = round(mean(sizes(tables, "outbox")))
    before = changed(tables)
    sink = MemorySink()
    # Looks for new rows are no part of an event's cost. There are more on a slow machine.
    monkeypatch.setattr(reader, "_FIRST_WAIT", 5.0)
    monkeypatch.setattr(tuned_settings, "GATHER", tuned_settings.LONG_GATHER)  # as on Aurora DSQL
    seldom = PublisherSettings(idle_max=5.0)
    await Publisher(Database(proxy.url), sink, seldom).run(until_empty=True)
    counts = kinds(proxy.statements)
    assert (changed(tables) - before)["outbox del"] == len(sink.messages) == waiting
    rows = min(waiting, DEFAULTS.batch_rows)
    batches = waiting / rows
    assert counts["delete"] <= 2 * batches
    assert counts["read"] <= 2 * batches + 3, "those at the start and at the end are not full"
    empty = max(0, DEFAULT_SHARDS - rows)
    # A read looks at a row twice: at its size, and then at the whole.
    read, delete = Cost(2 * rows * size + empty * LEAST_ROW), Cost(*[rows * LEAST_ROW] * 2)
    agrees(table("An event")[line], per_event([read, delete], rows, rows))
    whole = per_event([read, Cost(*[rows * size] * 2)], rows, rows)
    alone, batch = said(r"at most \$([\d.]+) a million alone, and \$([\d.]+) in batches")
    agrees([alone if waiting == 1 else batch], whole[-1:])


async def test_what_an_idle_hour_costs_is_on_the_page(
    url: str,  # noqa: ARG001 - the tables
    tables: Tables,
    proxy: PostgresProxy,
) -> None:
    """What runs is counted at the wire, at twenty times the speed; how often is settings."""
    quick = PublisherSettings(idle_max=0.05, lease=0.5)
    for _ in range(3):  # a machine that stands still for longer than a lease costs more
        before = changed(tables)
        proxy.reset_counts()
        async with Publisher(Database(proxy.url), MemorySink(), quick):
            with anyio.fail_after(60):
                while kinds(proxy.statements)["read"] < 3:  # noqa: ASYNC110 - the state is another's
                    await anyio.sleep(0.005)
                proxy.reset_counts()
                while (counts := kinds(proxy.statements))["beat"] < 4:  # noqa: ASYNC110 - as above
                    await anyio.sleep(0.005)
            lease_rows = sizes(tables, "outbox_leases")
        changes = changed(tables) - before
        beats = kinds(proxy.statements)["beat"]
        renewed = changes["outbox_leases upd"] / DEFAULT_SHARDS - 2  # taken once, released once
        # Each lease once a beat, but for a probe and the end.
        if set(counts) == {"read", "beat"} and beats - 2 <= renewed <= beats + 2:
            break
    else:
        pytest.fail(f"{counts}, {renewed} renewals of a lease in {beats} beats")

    reads = 3600 / DEFAULTS.longest_idle
    renewals = 3600 / DEFAULTS.renew
    shards = DEFAULT_SHARDS * LEAST_ROW
    lines = {
        "read": (reads, 0, Cost(shards)),
        "keep the leases": (
            renewals,
            DEFAULT_SHARDS + 1,
            Cost(2 * (shards + LEAST_ROW), metered(lease_rows) + LEAST_ROW),
        ),
        "look for paused topics": (3600 / REFRESH, 0, Cost(LEAST_ROW)),
        "probe the database (`--listen`)": (3600 / EVERY, 0, Cost(shards)),
    }
    page = table("An idle hour")
    for line, (times, rows, each) in lines.items():
        agrees(page[line], [times, rows, each.total, times * each.total])
    hour = sum(times * each.total for times, _, each in lines.values())
    agrees(page["together"][-1:], [hour])
    often, _, each = lines[BEAT]
    longer = hour - often * each.total * 2 / 3
    month = 730 * DOLLARS_A_MILLION / 1e6
    agrees(said(r"A month of 730 hours is \$([\d.]*\d)"), [hour * month])
    agrees(
        said(r"`--lease 30` makes it ([\d.]+) DPU an hour and \$([\d.]*\d)"),
        [longer, longer * month],
    )


def test_what_each_setting_of_polling_costs_is_on_the_page() -> None:
    each = Cost(DEFAULT_SHARDS * LEAST_ROW).total
    page = table("What polling costs")
    assert f"{IDLE_MAX:g} s" in page
    for line, cells in page.items():
        seconds = number(line.removesuffix(" s"))
        a_day = 86_400 / seconds
        month = a_day / 24 * 730 * each * DOLLARS_A_MILLION / 1e6
        agrees(cells[:3], [a_day, a_day * each, month])
        default = {IDLE_MAX: "PostgreSQL", DSQL_IDLE_MAX: "Aurora DSQL"}.get(seconds, "")
        assert cells[3] == default


def test_the_page_has_the_formulas_that_are_used_here() -> None:
    assert f"max(bytes, {LEAST_READ}) x {READ:.11f}" in PAGE
    assert f"max(bytes, {LEAST_WRITE}) x {WRITE:.8f}" in PAGE
    assert f"at least {LEAST_ROW} bytes" in PAGE
    assert f"{READ_CPU * 1000:.0f} ms for a statement that reads" in PAGE
    assert f"{WRITE_CPU * 1000:.0f} ms for one that writes" in PAGE
    assert f"${DOLLARS_A_MILLION:g} for a million DPU" in PAGE


def test_no_table_has_an_index_beside_its_key_to_be_written(tables: Tables) -> None:
    assert tables.execute(INDEXES) == [{"n": 0}]


def test_what_events_that_come_alone_cost_more_is_on_the_page() -> None:
    """After a second pause of 10 ms they double up to `idle_max`, with a read after each."""
    pauses = [reader._FIRST_WAIT, reader._FIRST_WAIT]
    while pauses[-1] * 2 < DEFAULTS.longest_idle:
        pauses.append(pauses[-1] * 2)
    more = len(pauses)
    agrees(
        said(r"(\d+) more reads, or ([\d.]+) DPU"),
        [more, more * Cost(DEFAULT_SHARDS * LEAST_ROW).total],
    )


def test_what_is_kept_for_good_is_on_the_page(url: str, tables: Tables) -> None:
    with Writer(Database(url)) as writer:
        writer.write(event(1))
    kept = sum(sizes(tables, "business_events", "event_headers"))
    agrees(said(r"([\d,]+) bytes of each event stay"), [kept])
    agrees(
        said(r"a million of them are \$([\d.]+) a month"), [kept / 1e9 * 1e6 * DOLLARS_A_GIGABYTE]
    )
