"""Statements for the keys of a page read these rows, and not the table: a page costs as the last.

PostgreSQL knows the length of an array, and reads a table of up to some 100,000 rows as a whole
rather than looking 1,000 keys up. Each page would then cost more than the one before.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import psycopg
import pytest
from tests.support.outbox_databases import OutboxDatabases

from dsql_outbox.outbox import array_literal, plain_array
from dsql_outbox.schema import statement

pytestmark = pytest.mark.postgres_only("DSQL has a planner of its own")

ROWS, KEYS = 20_000, 1_000

ID = "lpad(to_hex(n), 32, '0')::uuid"
FILL = f"""
INSERT INTO outbox.business_events SELECT {ID}, '', '', now(), now(), '{{}}', 2, '', {ID}, 'Car',
'C-' || n, 1, 1, n, 0, '', '[]' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.event_headers SELECT 'Car', 'C-' || n, 1, {ID}, '', '', now(), now(), '{{}}', 2
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.entities SELECT 'Car', 'C-' || n, 1, 1, n, 0, '{{}}', {ID}, now(), now()
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.outbox SELECT n % 16, n, {ID}, 0, 'Car', 'C-' || n, 1, '', '{{}}', '{{}}', 2,
now() FROM generate_series(1, {ROWS}) AS n;
ANALYZE
"""

NUMBERS = [ROWS // KEYS * n for n in range(1, KEYS + 1)]
NAMES = array_literal(f"C-{n}" for n in NUMBERS)
TYPES = array_literal(["Car"] * KEYS)
VERSIONS = plain_array([1] * KEYS)
IDS = plain_array(f"{n:032x}" for n in NUMBERS)
KEYS_OF_HEADERS: Mapping[str, object] = {
    "types": TYPES,
    "ids": NAMES,
    "versions": VERSIONS,
    "event_ids": IDS,
}
FIRST = "00000000-0000-0000-0000-000000000000"
PAGE: Mapping[str, object] = {"rows": KEYS, "forgotten_before": None}
ASKED: dict[str, Mapping[str, object]] = {
    "archive_events": {"event_ids": IDS},
    "archive_headers": {**KEYS_OF_HEADERS, "numbers": plain_array(NUMBERS)},
    "archive_take": {"event_ids": IDS, "fingerprints": array_literal([""] * KEYS), "number": 1},
    "archive_strip": KEYS_OF_HEADERS,
    "verify_touches": {
        "numbers": plain_array(NUMBERS),
        "entity_types": TYPES,
        "entity_ids": NAMES,
        "versions": VERSIONS,
        "event_ids": IDS,
    },
    "verify_events": {"first": FIRST, "rows": KEYS, "bytes": 1 << 20, "since": None},
    "verify_headers": {"entity_type": "", "entity_id": "", "version": 0, **PAGE},
    "verify_entities": {"entity_type": "", "entity_id": "", **PAGE},
    "verify_messages": {"shard": 7, "position": 0, "event_id": FIRST, "rows": KEYS},
}


@pytest.fixture(scope="module")
def filled(outbox_databases: OutboxDatabases) -> Iterator[psycopg.Connection[Any]]:
    with outbox_databases.lent(4) as url, psycopg.connect(url, autocommit=True) as connection:
        for sql in FILL.split(";"):
            connection.execute(sql.encode())
        yield connection


def relations(plan: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The tables that a plan reads, each with the rows that were looked at."""
    if "Relation Name" in plan:
        removed = [rows for name, rows in plan.items() if name.startswith("Rows Removed by")]
        yield (
            plan["Relation Name"],
            int(plan["Actual Loops"] * (plan["Actual Rows"] + sum(removed))),
        )
    for part in plan.get("Plans", []):
        yield from relations(part)


@pytest.mark.parametrize("name", ASKED)
def test_the_rows_of_the_keys_are_read_and_no_others(
    filled: psycopg.Connection[Any], name: str
) -> None:
    query = b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement(name, "outbox")
    with filled.transaction(force_rollback=True):
        row = cast("Any", filled.execute(query, ASKED[name]).fetchone())
    read = [*relations(row[0][0]["Plan"])]
    assert KEYS in {rows for _, rows in read}
    assert max(rows for _, rows in read) <= KEYS, read
