"""``dsql-outbox status``: what waits, what failed and who relays, and that it stays cheap."""

import json
import shlex
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.commands import run as run_process
from tests.support.database_roles import as_role, made_roles
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.pty_terminal import Terminal

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


def add_failure(
    sql: psycopg.Connection[Any], n: int, *, attempts: int, retry_at: str, error: str = "broken"
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_failures VALUES (1, %s, %s, %s, %s,"
        " coalesce(nullif(%s, 'soon')::timestamptz, clock_timestamp() + interval '9.5 s'))",
        (n, UUID(int=n), attempts, error, retry_at),
    )


def test_an_empty_outbox_is_all_zeros(url: str) -> None:
    shard = {"oldestSeconds": None, "owner": None, "epoch": 0, "leaseSeconds": None}
    nobody = "No publisher is alive: no message waits. If one ran, it ended by itself, and the log"
    nobody += (
        " of its service says why. Then start it as before: with the URL of its broker, and its"
    )
    nobody += " --map if it had one."
    start = "dsql-outbox publish --sink URL"
    assert as_json(url) == {
        "attention": [{"text": nobody, "command": start, "error": None}],
        "schema": "outbox",
        "waiting": {"count": 0, "more": False},
        "oldestSeconds": None,
        "failures": {"count": 0, "more": False, "blocked": 0, "worst": []},
        "deadLetters": {"count": 0, "more": False},
        "shards": [{"shard": n, **shard} for n in range(3)],
        "publishers": [],
        "stranded": [],
        "pausedTopics": [],
    }


def test_it_tells_how_much_waits_and_for_how_long(url: str, sql: psycopg.Connection[Any]) -> None:
    add_messages(sql, 3, shard=0, age=5)
    add_messages(sql, 2, shard=2, age=90)
    found = as_json(url)
    assert found["waiting"] == {"count": 5, "more": False}
    ages = [shard["oldestSeconds"] for shard in found["shards"]]
    assert ages[1] is None
    assert 5 <= ages[0] < 30
    assert 90 <= ages[2] < 120
    assert found["oldestSeconds"] == ages[2]


def test_nothing_is_counted_above_1000(url: str, sql: psycopg.Connection[Any]) -> None:
    add_messages(sql, 1000)
    assert as_json(url)["waiting"] == {"count": 1000, "more": False}
    add_messages(sql, 1, shard=1)
    assert as_json(url)["waiting"] == {"count": 1000, "more": True}
    assert "waiting       1000+, the oldest for" in run(url).stdout


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


def test_failures_are_counted_and_the_worst_are_shown(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    for n in range(1, 7):
        add_failure(sql, n, attempts=n, retry_at="soon")
    add_failure(sql, 7, attempts=10, retry_at="infinity", error="no\nsubject [bold]")
    failures = as_json(url)["failures"]
    assert (failures["count"], failures["more"], failures["blocked"]) == (7, False, 1)
    assert [found["attempts"] for found in failures["worst"]] == [10, 6, 5, 4, 3]
    blocked, next_one = failures["worst"][:2]
    assert blocked == {
        "eventId": str(UUID(int=7)),
        "shard": 1,
        "position": 7,
        "attempts": 10,
        "retrySeconds": None,
        "error": "no\nsubject [bold]",
    }
    assert 0 < next_one["retrySeconds"] <= 9.5
    shown = run(url).stdout.splitlines()
    assert "failing       7, 1 of them blocked" in shown
    assert any(
        line.split() == [str(UUID(int=7)), "1", "10", "blocked", "no", "subject", "[bold]"]
        for line in shown
    )


def test_leases_and_dead_letters_are_shown(url: str, sql: psycopg.Connection[Any]) -> None:
    sql.execute(
        "UPDATE outbox.outbox_leases SET owner = 'relay-a', epoch = 4,"
        " expires_at = clock_timestamp() + interval '9.5 s' WHERE shard = 1"
    )
    sql.execute(
        """INSERT INTO outbox.dead_letters SELECT gen_random_uuid(), clock_timestamp(), 0, 1, 0,
           'Car', 'c', 1, 't', '{}', 2, clock_timestamp(), 'broken', 10, 0
           FROM generate_series(1, 2)"""
    )
    found = as_json(url)
    shard = found["shards"][1]
    assert (shard["owner"], shard["epoch"]) == ("relay-a", 4)
    assert 0 < shard["leaseSeconds"] <= 9.5
    assert found["deadLetters"] == {"count": 2, "more": False}
    assert 0 <= found["deadSeconds"] < 3_600
    lines = run(url).stdout.splitlines()
    assert "shards        3, 1 leased, 3 idle" in lines
    assert not [line for line in lines if line.startswith("shard ")]


def test_a_lease_that_is_over_is_no_lease(url: str, sql: psycopg.Connection[Any]) -> None:
    sql.execute(
        "UPDATE outbox.outbox_leases SET owner = 'dead', epoch = 4,"
        " expires_at = clock_timestamp() - interval '1 s' WHERE shard = 1"
    )
    lines = run(url).stdout.splitlines()
    assert "shards        3, 0 leased, 2 idle" in lines
    assert any(line.split() == ["1", "-", "dead", "(over)"] for line in lines)


def test_messages_that_nobody_can_relay_are_named(url: str, sql: psycopg.Connection[Any]) -> None:
    add_messages(sql, 2, shard=70)
    add_messages(sql, 1, shard=-1)
    sql.execute(
        "INSERT INTO outbox.outbox SELECT 2, -40, gen_random_uuid(), 0, 'Car', 'c', 1, 't', '{}',"
        " '{}', 2, 'infinity'"
    )
    found = [(each["shard"], each["position"]) for each in as_json(url)["stranded"]]
    assert found == [(-1, None), (70, None), (2, -40)]
    lines = run(url).stdout.splitlines()
    assert any(line.startswith("70                 all       the shard has no") for line in lines)
    assert any(line.startswith("2                  -40       the position is") for line in lines)


def test_piped_it_is_aligned_text_without_colours(url: str, sql: psycopg.Connection[Any]) -> None:
    add_messages(sql, 1, shard=1, age=3962)
    done = run_process("status", "--database", url)
    assert done.code == 0
    assert done.out.decode() == (
        "No publisher is alive: 1 message waits, the oldest for 1 h 6 min. If one ran, it\n"
        "ended by itself, and the log of its service says why. Then start it as before:\n"
        "with the URL of its broker, and its --map if it had one.\n"
        "  dsql-outbox publish --sink URL\n"
        "\n"
        "outbox        schema outbox\n"
        "waiting       1, the oldest for 1 h 6 min\n"
        "failing       0\n"
        "dead letters  0\n"
        "shards        3, 0 leased, 2 idle\n"
        "publishers    0 alive\n"
        "\n"
        "shard  oldest     leased by\n"
        "1      1 h 6 min  -\n"
    )


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


def test_a_subject_with_a_long_queue_is_named_while_its_messages_are_late(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " VALUES ('p', clock_timestamp(), 600, '[]', 'default')"
    )
    add_messages(sql, 30, shard=1, age=61)
    assert first_sentence(url)[1] == "watch dsql-outbox status"
    sql.execute("UPDATE outbox.outbox SET subject_id = 'hot' WHERE position <> 7")
    text, command = first_sentence(url)
    assert "Car/hot has at least 29 messages in shard 1" in text
    assert command == "dsql-outbox event -- Car/hot"
    sql.execute("UPDATE outbox.outbox SET created_at = clock_timestamp()")
    assert "hotSubject" not in as_json(url)


def test_dead_letters_are_told_with_the_error_of_the_first(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    for error, age in (("too late", 5), ("too large", 10), ("too small", 1)):
        sql.execute(
            """INSERT INTO outbox.dead_letters VALUES (gen_random_uuid(),
               clock_timestamp() - %s * interval '1 second', 0, 1, 0, 'Car', 'c', 1, 't', '{}', 2,
               clock_timestamp(), %s, 3, 0)""",
            (age, error),
        )
    dead = as_json(url)["attention"][-1]
    assert dead["text"].startswith(
        "3 messages are dead letters: the publisher gave up on the first 1"
    )
    assert dead["error"] == "too large"


def test_on_a_terminal_the_same_is_a_table(url: str, sql: psycopg.Connection[Any]) -> None:
    add_messages(sql, 1, shard=1, age=3970)
    add_failure(sql, 1, attempts=2, retry_at="infinity", error="[red]markup")
    with Terminal(120, "status", "--database", url) as terminal:
        assert terminal.finish() == 0
    shown = terminal.output
    assert b"1 h 6 min" in shown
    assert b"[red]markup" in shown


def test_missing_tables_end_any_command_with_code_78(database_url: str) -> None:
    for words in (
        "status",
        "messages list",
        "messages retry --all",
        "topics list",
        "inbox prune --consumer a --older-than 1d",
        "targets list",
    ):
        done = CliRunner().invoke(main, [*words.split(), "--database", database_url])
        assert done.exit_code == 78, words
        told = done.stderr.splitlines()[-1]
        assert told.startswith("Error: schema outbox does not exist in database ")
        assert "`dsql-outbox schema apply` makes it new and empty" in told


@pytest.mark.parametrize(
    ("of_records", "words"),
    [
        ("WHERE name = 'outbox_fills'", ["older than this program", "keeps all messages"]),
        ("WHERE false", ["has dropped", "makes what is missing new and empty"]),
    ],
)
def test_a_missing_table_says_whether_it_was_ever_made(
    url: str, sql: psycopg.Connection[Any], of_records: str, words: list[str]
) -> None:
    sql.execute("DROP TABLE outbox.outbox_fills")
    sql.execute(f"DELETE FROM outbox.schema_migrations {of_records}".encode())
    status = CliRunner().invoke(main, ["status", "--database", url])
    doctor = CliRunner().invoke(main, ["doctor", "--database", url, "--json"])
    told = {each["name"]: each for each in json.loads(doctor.stdout)["findings"]}
    assert all(word in status.stderr for word in ["table outbox_fills", *words])
    assert f"Error: {told['relay']['text']}\n" == status.stderr
    assert told["schema"]["text"] in status.stderr
    assert told["schema"]["remedy"] in status.stderr


def test_no_database_is_wrong_usage() -> None:
    done = CliRunner().invoke(main, ["status"], env={"DSQL_OUTBOX_DATABASE": None})
    assert done.exit_code == 2
    assert "no database" in done.stderr


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
