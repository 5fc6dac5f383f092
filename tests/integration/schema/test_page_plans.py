"""A page reads rows from its place on, also where a comparison of rows bounds nothing.

Aurora DSQL may use it only as a filter. Here each one is changed so that PostgreSQL can use
it as a filter only, too, and the bound of its first column is left.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.support.outbox_databases import OutboxDatabases
from tests.support.sql.plans import analyzed, nodes

from dsql_outbox.operations import Selection
from dsql_outbox.publisher.form_proofs import read_proofs
from dsql_outbox.schema.named_statements import names, read_sql, statement
from dsql_outbox.schema.outbox_rows import RowId

pytestmark = pytest.mark.postgres_only("DSQL has a planner of its own")

GROUPS, ROWS, PAGE = 4, 60, 5
LAST, PLACE = GROUPS - 1, 50
"""The place of the page: in the last of `GROUPS` groups of `ROWS` rows."""

COMPARISON = re.compile(r"\(((?:\w+\.)?\w+)((?:, (?:\w+\.)?\w+)+)\)(\s+[<>]=?\s+\()")

FILL = """
INSERT INTO outbox.outbox
SELECT g, n, gen_random_uuid(), 0, 'Car', 'C-' || n, n, '', '{{}}', 'ab', 2, now() FROM {rows};
INSERT INTO outbox.outbox_failures
SELECT shard, position, event_id, 1, '', 'infinity' FROM outbox.outbox;
INSERT INTO outbox.event_headers
SELECT 'T' || g, 'C-1', n, gen_random_uuid(), '', '', now(), now(), '{{}}', 2 FROM {rows};
INSERT INTO outbox.entities
SELECT 'T' || g, 'C-' || n, 1, 0, 0, 0, '{{}}', gen_random_uuid(), now(), now() FROM {rows};
INSERT INTO outbox.outbox_replays
SELECT lpad(to_hex(g), 32, '0')::uuid, n, 0, '', '', now() FROM {rows};
INSERT INTO outbox.inbox SELECT 'c', 'S' || g, 'D-' || n, gen_random_uuid(), now() FROM {rows};
INSERT INTO outbox.outbox_operations
SELECT to_timestamp({groups} - g), gen_random_uuid(), '', '', '', '', '' FROM {rows};
INSERT INTO outbox.dead_letters
SELECT lpad(to_hex(g), 32, '0')::uuid, now() + n * interval '1 second', g, n, 0, 'Car', 'C', n, '',
  '{{}}', 2, now(), '', 1, 0 FROM {rows};
ANALYZE
"""

MIDDLE: dict[str, object] = {
    "shard": LAST,
    "position": PLACE,
    "event_id": UUID(int=LAST),
    "number": PLACE,
    "version": PLACE,
    "rows": PAGE,
    "bytes": 1 << 20,
    "last": LAST,
    "first_shard": 0,
    "last_shard": LAST,
    "shards": None,
    "entity_type": f"T{LAST}",
    "entity_id": "C-1",
    "after": PLACE,
    "event_type": None,
    "consumer": "c",
    "source": f"S{LAST}",
    "dedupe_id": f"D-{PLACE}",
    "seconds": 1.0,
    "id": UUID(int=0),
    "operated_at": "1970-01-01 00:00:01+00",
    "died_at": None,
    "event_ids": None,
    "forgotten_before": None,
}
READS = read_proofs("outbox", RowId(LAST, PLACE, str(UUID(int=0))), PAGE)
PAGES = [name for name in names("statements") if COMPARISON.search(read_sql("statements", name))]


@pytest.fixture(scope="module")
def filled(outbox_databases: OutboxDatabases) -> Iterator[psycopg.Connection[Any]]:
    rows = f"generate_series(0, {LAST}) AS g, generate_series(1, {ROWS}) AS n"
    options = "-c enable_seqscan=off -c enable_bitmapscan=off -c plan_cache_mode=force_generic_plan"
    with (
        outbox_databases.lent(GROUPS) as url,
        psycopg.connect(url, autocommit=True, options=options) as connection,
    ):
        for sql in FILL.format(rows=rows, groups=GROUPS).split(";"):
            connection.execute(sql.encode())
        yield connection


def looked_at(node: Mapping[str, Any]) -> int:
    removed = [rows for name, rows in node.items() if name.startswith("Rows Removed by")]
    return int(node["Actual Loops"] * (node["Actual Rows"] + sum(removed)))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_no_group_before_its_place(filled: psycopg.Connection[Any], name: str) -> None:
    text = statement(name, "outbox", **({"rows": PAGE} if name == "failure_list" else {}))
    changed = COMPARISON.sub(r"(coalesce(\1, \1)\2)\3", text.decode())
    assert changed != text.decode()
    parameters, most = Selection().parameters() | MIDDLE, ROWS + PAGE
    for ((query, asked),) in READS.values():
        if query == text:
            parameters, most = asked, ROWS - PLACE + 1
    plan = analyzed(filled, changed, parameters)
    compared = [n for n in nodes(plan) if "COALESCE" in n.get("Filter", "")]
    found = [looked_at(node) for node in compared if "Relation Name" in node]
    assert 0 < max(found) <= most
