"""``dsql-outbox erase``: what it prints, its exit codes, and what a kill leaves."""

import signal
from typing import Any

import psycopg
from click.testing import CliRunner, Result
from tests.support.commands import Command
from tests.support.waiting import wait_until

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

MARK = "Zaphod"
REASON = ("--reason", "ticket 77", "--yes")


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--database", url])


def fill(url: str, events: int) -> None:
    with Writer(Database(url)) as writer:
        given = [Entity("Person", "ann", {"name": MARK}), Entity("Car", "7", {"km": 1})]
        writer.write_many([Event.new("Moved", given) for _ in range(events)])


def marked(sql: psycopg.Connection[Any]) -> int:
    found = sql.execute(
        "SELECT count(*) FROM outbox.business_events WHERE event_data::text LIKE %s", (f"%{MARK}%",)
    ).fetchone()
    assert found is not None
    return int(found[0])


def lock(sql: psycopg.Connection[Any], version: int) -> None:
    """Lock an event: it stops a command in the middle."""
    sql.execute(
        "SELECT FROM outbox.business_events b WHERE id = (SELECT event_id FROM"
        " outbox.event_headers WHERE entity_id = '7' AND entity_version = %s) FOR UPDATE",
        (version,),
    )


def is_stopped(sql: psycopg.Connection[Any]) -> bool:
    """Whether a command waits for the lock."""
    waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return sql.execute(f"{waits} AND datname = current_database()").rowcount > 0


def test_what_a_kill_leaves_the_next_run_finishes(url: str, sql: psycopg.Connection[Any]) -> None:
    fill(url, 700)
    for version, left in ((400, 400), (650, 100)):
        with psycopg.connect(url) as other:
            lock(other, version)
            with Command("erase", "Person/ann", *REASON, "--database", url) as command:
                wait_until(lambda: is_stopped(sql), timeout=60)
                assert marked(sql) == left
                command.signal(signal.SIGKILL)
        sql.execute("UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 second'")
    assert run(url, "verify").exit_code == 1
    assert run(url, "erase", "Person/ann", *REASON).exit_code == 0
    assert marked(sql) == 0
    done = run(url, "verify")
    assert done.exit_code == 0, done.output
    notices = sql.execute("SELECT count(*) FROM outbox.outbox_erasures").fetchone()
    assert notices == (1,)


def test_an_erasure_that_was_interrupted_does_not_say_that_it_is_done(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    fill(url, 310)
    with psycopg.connect(url) as other:
        lock(other, 309)
        with Command("erase", "Person/ann", *REASON, "--database", url) as command:
            wait_until(lambda: is_stopped(sql), timeout=60)
            command.signal(signal.SIGINT)
            while "finishing" not in command.error_line():
                pass
            other.rollback()
            done = command.wait()
    assert done.code == 130
    assert done.out == b"events: 310 of 310, messages: 310\n"
    assert "not done; run the same command to continue" in done.err
