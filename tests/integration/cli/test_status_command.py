"""``dsql-outbox status``: what waits, what failed and who relays, and that it stays cheap."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.database_roles import as_role, made_roles
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.cli.main import main
from dsql_outbox.observability.shown_text import duration
from dsql_outbox.outbox import Database
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.roles import grant


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["status", "--database", url, *words])


def as_json(url: str) -> Any:
    done = run(url, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def add_messages(
    sql: psycopg.Connection[Any], count: int, *, shard: int = 0, age: float = 0.0
) -> None:
    sql.execute(
        """INSERT INTO outbox.outbox SELECT %s, n, gen_random_uuid(), 0, 'Car', 'c' || n, 1, 't',
           '{}', '{}', 2, clock_timestamp() - %s * interval '1 second'
           FROM generate_series(1, %s) AS n""",
        (shard, age, count),
    )


def test_the_oldest_of_a_shard_costs_one_probe_of_the_index(sql: psycopg.Connection[Any]) -> None:
    for shard in range(3):
        add_messages(sql, 5_000, shard=shard)
    sql.execute("VACUUM ANALYZE outbox.outbox")
    plan = explain(sql, statement("status_shards", "outbox"))
    assert ("Index Scan", "outbox") in set(nodes(plan))
    assert blocks(plan) < 30, "the table has hundreds"


def test_counting_what_waits_ends_at_the_limit(sql: psycopg.Connection[Any]) -> None:
    add_messages(sql, 15_000)
    sql.execute("VACUUM ANALYZE outbox.outbox")
    plan = explain(sql, statement("status_waiting", "outbox", limit=1000))
    assert blocks(plan) < 60, "the table has hundreds"


def explain(sql: psycopg.Connection[Any], query: bytes) -> dict[str, Any]:
    row = sql.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield plan["Node Type"], plan.get("Relation Name")
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def blocks(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def first_sentence(url: str) -> tuple[str, str]:
    first = as_json(url)["attention"][0]
    return first["text"], first["command"]


def test_a_role_that_lost_a_right_of_a_publisher_is_named_with_the_grant(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    with made_roles(url) as roles:
        assert roles.publisher
        assert roles.reader
        grant(Database(url), roles)
        as_reader = as_role(url, roles.reader)
        assert first_sentence(as_reader)[1] == "dsql-outbox publish --sink URL"
        for right in ("DELETE ON outbox.outbox", "UPDATE ON outbox.outbox_leases"):
            sql.execute(f"REVOKE {right} FROM {roles.publisher}".encode())
        text, command = first_sentence(as_reader)
        lacks = "lacks DELETE on outbox, UPDATE on outbox_leases, and no publisher is alive: no"
        assert text.startswith(f"Role {roles.publisher} {lacks}")
        done = CliRunner().invoke(main, [*shlex.split(command)[1:], "--database", url])
        assert done.exit_code == 0, done.output
        assert first_sentence(as_reader)[0].startswith("No publisher is alive")


@pytest.mark.postgres_only("Aurora DSQL does not report that a session is read-only")
def test_a_database_that_accepts_no_writes_is_the_cause_that_no_publisher_is_alive(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    sign = "&" if "?" in url else "?"
    read_only = f"{url}{sign}options=-cdefault_transaction_read_only%3Don"
    text, command = first_sentence(read_only)
    assert text.startswith(
        "The database accepts no writes, so nothing is stored and nothing is relayed. Pub"
    )
    assert command == "dsql-outbox doctor"
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " VALUES ('p', clock_timestamp(), 60, '[]', 'default')"
    )
    assert as_json(read_only)["attention"] == [], "a standby is a good place to ask"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-0.4, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations_have_the_units_that_matter(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_server_that_says_that_it_is_unavailable_ends_with_69(url: str) -> None:
    with PostgresProxy(url) as proxy:
        proxy.refuse(None, sqlstate="XX000", message="server unavailable", matching="SELECT")
        done = CliRunner().invoke(main, ["status", "--database", proxy.url])
        assert (done.exit_code, done.stderr) == (69, "Error: server unavailable\n")
        proxy.heal()
        proxy.refuse(None, sqlstate="XX000", message="a defect", matching="SELECT")
        assert CliRunner().invoke(main, ["status", "--database", proxy.url]).exit_code == 1
