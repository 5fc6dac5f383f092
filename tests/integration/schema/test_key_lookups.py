"""Statements for the keys of a page read these rows, and not the table: a page costs as the last.

PostgreSQL knows the length of an array, and reads a table of up to some 100,000 rows as a whole
rather than looking 1,000 keys up. Each page would then cost more than the one before.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import md5
from typing import Any, cast

import psycopg
import pytest
from tests.support.outbox_databases import OutboxDatabases
from tests.support.sql.plans import analyzed, nodes

from dsql_outbox.operations import Selection
from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.schema.named_statements import statement

pytestmark = pytest.mark.postgres_only("DSQL has a planner of its own")

ROWS, KEYS, BLOCKS = 20_000, 1_000, 50

ID = "md5(n::text)::uuid"
DIED = "'epoch'::timestamptz + make_interval(secs => n)"
FILL = f"""
INSERT INTO outbox.business_events SELECT {ID}, '', '', now(), now(), '{{}}', 2, '', {ID}, 'Car',
'C-' || n, 1, 1, n, 0, '', '[]' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.event_headers SELECT 'Car', 'C-' || n, 1, {ID}, '', '', now(), now(), '{{}}', 2
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.entities SELECT 'Car', 'C-' || n, 1, 1, n, 0, '{{}}', {ID}, now(), now()
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.outbox SELECT n % 16, n, {ID}, 0, 'Car', 'C-' || n, 1, '', '{{}}', '{{}}', 2,
now() FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.outbox_failures SELECT n % 16, n, {ID}, 1, '', now()
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.dead_letters SELECT {ID}, {DIED}, 1, n, 0, 'Car', 'C-' || n, 1, '', '{{}}', 2,
now(), '', 1, 0 FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.event_headers SELECT 'Person', 'P-1', n, {ID}, '', '', now(), now(), '{{}}', 2
FROM generate_series(1, {ROWS}) AS n;
INSERT INTO outbox.outbox_replays SELECT {ID}, 1, n, '', '', now()
FROM generate_series(1, {ROWS}) AS n;
ANALYZE
"""

NUMBERS = [ROWS // KEYS * n for n in range(1, KEYS + 1)]
NAMES = array_literal(f"C-{n}" for n in NUMBERS)
TYPES = array_literal(["Car"] * KEYS)
VERSIONS = plain_array([1] * KEYS)
IDS = plain_array(md5(b"%d" % n, usedforsecurity=False).hexdigest() for n in NUMBERS)
KEYS_OF_HEADERS: Mapping[str, object] = {
    "types": TYPES,
    "ids": NAMES,
    "versions": VERSIONS,
    "event_ids": IDS,
}
MESSAGES: Mapping[str, object] = {
    "shards": plain_array(n % 16 for n in NUMBERS),
    "positions": plain_array(NUMBERS),
    "event_ids": IDS,
}
DIED_AT = array_literal(f"{datetime.fromtimestamp(n, UTC)}" for n in NUMBERS)
LETTERS: Mapping[str, object] = {"event_ids": IDS, "died_ats": DIED_AT}
EMPTY = array_literal([""] * KEYS)
OBJECTS = array_literal(["{}"] * KEYS)
PERSON: Mapping[str, object] = {"entity_type": "Person", "entity_id": "P-1"}
OF_EVENTS: Mapping[str, object] = {
    **PERSON,
    "event_ids": IDS,
    "before": EMPTY,
    "data": OBJECTS,
    "headers": OBJECTS,
    "touches": OBJECTS,
    "fingerprints": EMPTY,
    "erased_at": "now",
}
DYING = {**MESSAGES, "errors": EMPTY, "attempts": VERSIONS, "patterns": EMPTY}
REQUEUED = {
    "event_ids": IDS,
    "positions": plain_array(n + ROWS for n in NUMBERS),
    "previous_positions": plain_array([0] * KEYS),
    "headers": OBJECTS,
}
ALL_SHARDS = {"first_shard": 0, "last_shard": 1023}
FIRST = "00000000-0000-0000-0000-000000000000"
PAGE: Mapping[str, object] = {"rows": KEYS, "forgotten_before": None}
ASKED: dict[str, Mapping[str, object]] = {
    "erase_stream": {**PERSON, "after": ROWS // 2, "before": ROWS, "rows": KEYS},
    "erase_events": {"event_ids": IDS},
    "erase_messages": {"event_ids": IDS},
    "erase_letters": {"event_ids": IDS},
    "erase_events_change": OF_EVENTS,
    "erase_headers_change": {**KEYS_OF_HEADERS, "data": OBJECTS},
    "erase_messages_change": {**PERSON, **MESSAGES, "headers": OBJECTS},
    "erase_errors_change": {**MESSAGES, "error": ""},
    "erase_letters_change": {
        **PERSON,
        "event_ids": IDS,
        "died_at": DIED_AT,
        "headers": OBJECTS,
        "error": "",
    },
    "outbox_delete": MESSAGES,
    "outbox_bury": DYING,
    "outbox_copy": DYING,
    "failure_forget": MESSAGES,
    "letter_delete": LETTERS,
    "letter_candidates": LETTERS,
    "event_lock": {"event_ids": IDS},
    "event_find": {"ids": IDS},
    "events_present": {"ids": IDS},
    "replay_candidates": {"event_ids": IDS, "target": "default"},
    "letter_find": {**Selection().parameters(), **ALL_SHARDS, "event_ids": IDS},
    "fill_insert": {"event_ids": IDS, "headers": OBJECTS, "first": 1024},
    "letter_requeue": {**REQUEUED, "died_ats": DIED_AT},
    "replay_requeue": {**REQUEUED, "target": "default"},
    "failure_find": MESSAGES,
    "waiting_find": {**Selection().parameters(), **ALL_SHARDS, "event_ids": IDS},
    "forget_named": {"event_ids": IDS},
    "forget_events": {"event_ids": IDS},
    "forget_headers": KEYS_OF_HEADERS,
    "forget_replays": {"event_ids": IDS},
    "verify_touches": {
        "numbers": plain_array(NUMBERS),
        "entity_types": TYPES,
        "entity_ids": NAMES,
        "versions": VERSIONS,
        "event_ids": IDS,
    },
    "forget_scan": {"first": FIRST, "before": datetime.now(UTC), "rows": KEYS},
    "verify_letters": {"event_id": FIRST, "died_at": "epoch", "rows": KEYS},
    "verify_replays": {"event_id": FIRST, "number": 0, "rows": KEYS},
    "verify_events": {"first": FIRST, "rows": KEYS, "bytes": 1 << 20, "since": None},
    "verify_headers": {"entity_type": "", "entity_id": "", "version": 0, **PAGE},
    "verify_entities": {"entity_type": "", "entity_id": "", **PAGE},
    "verify_messages": {
        "shard": 7,
        "position": 0,
        "event_id": FIRST,
        "rows": KEYS,
        "bytes": 1 << 20,
    },
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
@pytest.mark.parametrize("plan", ["custom", "generic"])
def test_the_rows_of_the_keys_are_read_and_no_others(
    filled: psycopg.Connection[Any], name: str, plan: str
) -> None:
    """Also after many calls, when PostgreSQL has a plan for all values."""
    with filled.transaction(force_rollback=True):
        filled.execute(f"SET LOCAL plan_cache_mode = force_{plan}_plan".encode())
        found = analyzed(filled, statement(name, "outbox").decode(), ASKED[name])
    read = [*relations(found)]
    # What a range of an index has beside the keys is no row that was looked at.
    assert found["Shared Hit Blocks"] + found["Shared Read Blocks"] < BLOCKS * KEYS
    assert KEYS in {rows for _, rows in read}
    assert max(rows for _, rows in read) <= KEYS, read


@pytest.mark.parametrize("name", ASKED)
def test_an_array_is_cast_once_where_a_table_is_read_as_a_whole(
    filled: psycopg.Connection[Any], name: str
) -> None:
    """Cast for each row, 1,000 keys among 6,000 events would take half a minute."""
    with filled.transaction(force_rollback=True):
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            filled.execute(f"SET LOCAL enable_{way} = off".encode())
        query = b"EXPLAIN (FORMAT JSON) " + statement(name, "outbox")
        row = cast("Any", filled.execute(query, ASKED[name]).fetchone())
    found = [*nodes(row[0][0]["Plan"])]
    assert any("Seq Scan" in node["Node Type"] for node in found)
    assert not any("'{" in node.get("Filter", "") for node in found)
