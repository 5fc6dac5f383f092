"""The tables of docs/scale.md: ``python -m benchmarks.scale``.

Costs per event are read from docs/cost.md, whose numbers a test checks. The other
inputs are the constants below, each with its source.
"""

import re
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import Final, NamedTuple

_COST_PAGE: Final = Path(__file__).parents[1] / "docs" / "cost.md"

RATES: Final = (1_000, 100_000, 1_000_000)
"""Events per second."""

BATCH: Final = 100
"""Events per transaction, as in the line `write_many` of docs/cost.md."""

COMMIT: Final = 0.035
"""Seconds of a write: p95 was 28 to 41 ms in one Region (a field guide, Seoul, September 2026)."""

WRITER_CPU: Final = {1: 118e-6, BATCH: 34e-6}
"""Seconds of a core per event, by events per transaction (docs/performance.md)."""

PUBLISHER: Final = 11_600
"""Messages per second of one publisher: half of what a drain reached at the distance of a cluster
(docs/performance.md), so that a backlog shrinks."""

SHARD: Final = 1_000
"""Messages per second of one shard. A key range that was never split takes a few thousand rows per
second (AWS, notes of its loader), and a message is one insert and one delete."""

CLUSTER_ROWS: Final = 126_784
"""Rows per second: the highest rate that was measured on a cluster, in December 2025."""

CONNECTIONS: Final = 10_000
STORAGE: Final = 10 << 40
CLUSTERS: Final = 20
"""Quotas of a cluster, and of an account, before an increase (AWS, Aurora DSQL quotas)."""

LEAST_SHARDS: Final = 16
HOURS: Final = 730  # of a month
SECONDS: Final = HOURS * 3600


class Costs(NamedTuple):
    """Per million events: dollars to write and to relay. Rows and bytes are per event.

    `stored` are the bytes that stay for good, `storage` the dollars per million events and month.
    """

    write: float
    batch: float
    relay: float
    rows: int
    stored: int
    storage: float


def costs() -> Costs:
    """Read the costs from docs/cost.md."""
    page = _COST_PAGE.read_text(encoding="utf-8")

    def cells(line: str) -> list[float]:
        found = re.search(rf"^\| {re.escape(line)} \|(.*)\|$", page, re.MULTILINE)
        assert found, line
        return [float(cell.replace(",", "")) for cell in found[1].split("|")]

    kept = re.search(
        r"([\d,]+) bytes of each event stay.*?a million of them are \$([\d.]+)", page, re.DOTALL
    )
    assert kept
    write, batch = cells("write, 1 entity"), cells(f"`write_many` of {BATCH}, each")
    relay = cells("relay, a batch of 500, each")
    rows = round(write[1] + relay[1])
    stored = int(kept[1].replace(",", ""))
    return Costs(write[-1], batch[-1], relay[-1], rows, stored, float(kept[2]))


class Plan(NamedTuple):
    """The resources for a rate. `cells` are clusters, each with its own tables and publishers."""

    rate: int
    cells: int
    shards: int
    publishers: int
    connections_single: int
    connections_batch: int
    cores_single: float
    cores_batch: float


def plan(rate: int) -> Plan:
    """The plan for a rate in events per second; shards and publishers are per cell."""
    cells = ceil(rate * costs().rows / CLUSTER_ROWS)
    of_cell = rate / cells
    publishers = max(2, ceil(of_cell / PUBLISHER) + 1)
    return Plan(
        rate,
        cells,
        _power_of_two(max(LEAST_SHARDS, of_cell / SHARD, 2 * publishers)),
        publishers,
        _whole(rate * COMMIT),
        _whole(rate / BATCH * COMMIT),
        rate * WRITER_CPU[1],
        rate * WRITER_CPU[BATCH],
    )


def _whole(amount: float) -> int:
    return ceil(round(amount, 6))


def _power_of_two(least: float) -> int:
    return 1 << ceil(least - 1).bit_length()


def limits() -> Iterator[Sequence[str]]:
    """The rows of the table of limits."""
    cost = costs()
    yield "one", "limit", "events per second", "what to do"
    yield (
        "connection, one event per transaction",
        f"a commit takes {COMMIT * 1000:.0f} ms",
        f"{1 / COMMIT:,.0f}",
        "more connections, or coalesce",
    )
    yield (
        f"connection, {BATCH} events per transaction",
        "the same",
        f"{BATCH / COMMIT:,.0f}",
        "more connections",
    )
    yield (
        "writer process, one core",
        f"{WRITER_CPU[1] * 1e6:.0f} us per event, in batches {WRITER_CPU[BATCH] * 1e6:.0f} us",
        f"{1 / WRITER_CPU[1]:,.0f} to {1 / WRITER_CPU[BATCH]:,.0f}",
        "more processes",
    )
    yield (
        "subject, one event per transaction",
        "its transactions follow each other",
        f"{1 / COMMIT:,.0f}",
        "coalesce: one process, one lane for this subject",
    )
    yield (
        f"subject, {BATCH} events per transaction",
        "the same",
        f"{BATCH / COMMIT:,.0f}",
        "divide the subject",
    )
    yield (
        "subject, relayed",
        "one message on its way",
        "1 / the broker's answer",
        "divide the subject",
    )
    yield (
        "shard",
        "one key range takes inserts at its end",
        f"{SHARD:,}",
        "`schema apply --shards N`",
    )
    yield (
        "publisher",
        f"half of a measured drain, {2 * PUBLISHER:,}",
        f"{PUBLISHER:,}",
        "more publishers, up to one per shard",
    )
    yield (
        "cluster",
        f"{CLUSTER_ROWS:,} rows per second measured, {cost.rows} rows per event",
        f"{CLUSTER_ROWS / cost.rows:,.0f}",
        "cells",
    )
    yield (
        "cluster, connections",
        f"{CONNECTIONS:,}, one event per transaction",
        f"{CONNECTIONS / COMMIT:,.0f}",
        "batches, or cells",
    )


def sizes() -> Iterator[Sequence[str]]:
    """The rows of the table of plans."""
    plans = [plan(rate) for rate in RATES]
    yield "events per second", *(f"{each.rate:,}" for each in plans)
    yield "cells (clusters)", *(f"{each.cells:,}" for each in plans)
    yield "shards per cell", *(f"{each.shards:,}" for each in plans)
    yield "publishers per cell", *(f"{each.publishers:,}" for each in plans)
    yield "writer connections, single", *(f"{each.connections_single:,}" for each in plans)
    yield (
        f"writer connections, batches of {BATCH}",
        *(f"{each.connections_batch:,}" for each in plans),
    )
    yield "writer cores, single", *(f"{each.cores_single:,.1f}" for each in plans)
    yield f"writer cores, batches of {BATCH}", *(f"{each.cores_batch:,.1f}" for each in plans)


def bills() -> Iterator[Sequence[str]]:
    """The rows of the table of costs per month."""
    cost = costs()
    millions = [rate * SECONDS / 1e6 for rate in RATES]
    stored = [count * 1e6 * cost.stored for count in millions]
    yield "events per second", *(f"{rate:,}" for rate in RATES)
    yield "events per month, in millions", *(f"{count:,.0f}" for count in millions)
    yield "write, single", *(f"${count * cost.write:,.0f}" for count in millions)
    yield f"write, batches of {BATCH}", *(f"${count * cost.batch:,.0f}" for count in millions)
    yield "relay, batches of 500", *(f"${count * cost.relay:,.0f}" for count in millions)
    yield "stored more each month, in TB", *(f"{size / 1e12:,.1f}" for size in stored)
    yield (
        "each month of events kept costs, per month",
        *(f"${count * cost.storage:,.0f}" for count in millions),
    )
    yield (
        "days until the storage quota of a cell is full",
        *(f"{days_until_full(rate):,.1f}" for rate in RATES),
    )


def days_until_full(rate: int) -> float:
    """Days until the events of a rate fill the storage quotas of its cells."""
    return plan(rate).cells * STORAGE / (rate * 86_400 * costs().stored)


def table(rows: Iterator[Sequence[str]]) -> str:
    """A table in Markdown; the first row is the head."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    for rows in (limits(), sizes(), bills()):
        print(table(rows), end="\n\n")
