"""``dsql-outbox topics``, and what ``status`` tells of paused topics."""

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from dsql_outbox.cli.main import main


def run(command: str, *words: str, url: str) -> Result:
    return CliRunner().invoke(main, [*command.split(), "--database", url, *words])


def test_a_topic_is_paused_listed_and_resumed(url: str) -> None:
    assert run("topics list", url=url).stdout == "no paused topics\n"
    done = run("topics pause", "events.LoanPaid", "--reason", "ticket\n77", url=url)
    assert (done.exit_code, done.stdout) == (0, "events.LoanPaid  paused\n")
    header, line = run("topics list", url=url).stdout.splitlines()
    assert header.split() == ["topic", "paused", "by", "for", "reason"]
    assert line.startswith("events.LoanPaid")
    assert line.endswith("ticket 77")
    done = run("topics resume", "events.LoanPaid", url=url)
    assert (done.exit_code, done.stdout) == (0, "events.LoanPaid  resumed\n")
    assert run("topics list", url=url).stdout == "no paused topics\n"


def test_a_topic_that_was_not_paused_fails_the_command(url: str) -> None:
    done = run("topics resume", "events.LoanPaid", url=url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "events.LoanPaid: no operator has paused it\n"


def test_programs_get_json(url: str) -> None:
    assert run("topics list", "--json", url=url).stdout == ""
    done = run("topics pause", "a", "--reason", "why", "--json", url=url)
    assert json.loads(done.stdout) == {"topic": "a", "paused": True}
    found = json.loads(run("topics list", "--json", url=url).stdout)
    assert {"topic": "a", "reason": "why"}.items() <= found.items()
    assert set(found) == {"topic", "reason", "pausedBy", "pausedAt", "pausedSeconds"}
    done = run("topics resume", "a", "--json", url=url)
    assert json.loads(done.stdout) == {"topic": "a", "paused": False}


def test_topics_that_a_publisher_has_paused_are_listed_too(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    paused = '[{"topic": "bills.?", "by": "map", "seconds": 720}, "of.old", 0]'
    for owner, seen, target in (("p", 0, "default"), ("gone", 90, "default"), ("q", 0, "lake")):
        sql.execute(
            "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
            " VALUES (%s, clock_timestamp() - %s * interval '1 s', 60, %s, %s)",
            (owner, seen, paused.replace("?", owner), target),
        )
    _, line, old = run("topics list", url=url).stdout.splitlines()
    assert line.split(maxsplit=5)[:4] == ["bills.p", "p", "12", "min"]
    assert line.endswith("the map fails for it")
    assert old.split(maxsplit=3) == ["of.old", "p", "-", "the broker refuses it, or the map fails"]
    found = json.loads(run("topics list", "--json", url=url).stdout.splitlines()[0])
    assert found.pop("seconds") >= 720
    assert found == {"topic": "bills.p", "refusedBy": "p", "by": "map"}


def test_no_topic_is_wrong_usage(url: str) -> None:
    done = run("topics pause", "", url=url)
    assert done.exit_code == 2
    assert "a topic has 1 to 255 characters and no NUL, got ''" in done.stderr


# --- status ----------------------------------------------------------------------------


def add_publisher(sql: psycopg.Connection[Any], owner: str, paused: str, age: int) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " VALUES (%s, clock_timestamp() - %s * interval '1 second', 10, %s, 'default')",
        (owner, age, paused),
    )


def test_status_shows_what_an_operator_and_what_publishers_paused(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    run("topics pause", "events.A", "--reason", "ticket 77", url=url)
    add_publisher(sql, "alive", '["events.B", 4700]', 0)
    add_publisher(sql, "dead", '["events.C"]', 60)
    lines = run("status", url=url).stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("paused topic"))
    table = lines[at : at + 4]
    named = ["paused topic", "events.A", "events.B", "and 4,700 more"]
    assert [line.split("  ")[0] for line in table] == named
    assert table[1].endswith("ticket 77")
    assert "alive" in table[2]
    assert not any("events.C" in line for line in lines)

    found = json.loads(run("status", "--json", url=url).stdout)
    assert [topic["topic"] for topic in found["pausedTopics"]] == ["events.A"]
    assert {seen["owner"]: seen["paused"] for seen in found["publishers"]} == {
        "alive": [{"topic": "events.B"}],
        "dead": [{"topic": "events.C"}],
    }


@pytest.mark.parametrize("paused", ["[]", "no JSON", '{"events.A": 1}'])
def test_status_stands_any_text_of_a_publisher(
    url: str, sql: psycopg.Connection[Any], paused: str
) -> None:
    add_publisher(sql, "me", paused, 0)
    found = json.loads(run("status", "--json", url=url).stdout)
    assert found["publishers"][0]["paused"] == []
