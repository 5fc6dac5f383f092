"""``dsql-outbox status --watch``: rates, machines, terminals, and databases that come and go."""

import json
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.commands import Command
from tests.support.pty_terminal import Terminal

from dsql_outbox.operations.status import Counters, Meter
from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres, PostgresProxy

QUICKLY = ("--watch", "--interval", 0.1)


def watch(url: str, *words: object) -> Command:
    return Command("status", "--database", url, *QUICKLY, *words)


def parsed(line: bytes) -> dict[str, str]:
    return dict(part.split("=", 1) for part in line.decode().split())


def add_rows(sql: psycopg.Connection[Any], count: int) -> None:
    sql.execute(
        """INSERT INTO outbox.outbox SELECT 1, n, gen_random_uuid(), 0, 'Car', 'c' || n, 1, 't',
           '{}', '{}', 2, clock_timestamp() FROM generate_series(1, %s) AS n""",
        (count,),
    )
    # So that the numbers are there now, and not in some seconds.
    sql.execute("SELECT pg_stat_force_next_flush()")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_piped_it_is_a_line_each_time_until_a_signal_ends_it_well(
    url: str, number: signal.Signals
) -> None:
    with watch(url) as command:
        first = parsed(command.line())
        second = parsed(command.line())
        command.signal(number)
        done = command.wait()
    assert (done.code, done.err) == (0, "stopped: nothing was changed\n")
    assert first.pop("at") <= second["at"]
    assert first == {
        "waiting": "0",
        "oldest_s": "-",
        "in_per_s": "unknown",
        "out_per_s": "unknown",
        "failing": "0",
        "blocked": "0",
        "dead": "0",
        "paused_topics": "0",
        "stranded": "0",
        "shards": "3",
        "leased": "0",
        "publishers": "0",
        "breaker": "unknown",
        "attention": "1",
    }
    assert second["in_per_s"] == "0.0"


def test_rates_show_what_goes_in_and_out(url: str, sql: psycopg.Connection[Any]) -> None:
    with watch(url) as command:
        command.line()
        add_rows(sql, 500)
        while parsed(line := command.line())["in_per_s"] in {"unknown", "0.0"}:
            pass
        assert float(parsed(line)["in_per_s"]) > 100
        assert (parsed(line)["waiting"], parsed(line)["out_per_s"]) == ("500", "0.0")
        sql.execute("DELETE FROM outbox.outbox")
        sql.execute("SELECT pg_stat_force_next_flush()")
        while parsed(line := command.line())["out_per_s"] == "0.0":
            pass
        assert parsed(line)["waiting"] == "0"


def test_publishers_are_alive_until_they_were_not_seen_for_a_lease(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " SELECT 'relay-' || name, clock_timestamp() - age * interval '1 s', lease, '[]', 'default'"
        " FROM (VALUES ('a', 0, 60), ('b', 70, 60), ('c', 40, 60), ('d', 3, 2), ('e', 1, 10),"
        " ('f', 12, 10)) AS v(name, age, lease)"
    )
    with watch(url, "--json") as command:
        look = json.loads(command.line())
    assert (look["breaker"], look["rates"], look["unreachable"]) == ("unknown", None, None)
    seen = look["status"]["publishers"]
    assert {each["owner"][-1]: each["alive"] for each in seen} == {
        "a": True, "b": False, "c": True, "d": False, "e": True, "f": False,
    }  # fmt: skip
    assert 70 <= seen[-1]["seenSeconds"] < 90
    assert [each["leaseSeconds"] for each in seen if each["owner"] == "relay-c"] == [60]
    sql.execute("DELETE FROM outbox.outbox_publishers WHERE owner = 'relay-e'")
    with Command("status", "--database", url) as command:
        shown = command.wait().out.decode().splitlines()
    assert "publishers    2 alive" in shown
    assert any(line.split()[:5] == ["relay-b", "0", "no,", "seen", "1"] for line in shown)


def test_a_database_that_restarts_is_waited_for(quick_folder: Path) -> None:
    with EmbeddedPostgres(quick_folder / "watched", settings={"fsync": "off"}) as server:
        url = server.create_database("watched")
        apply(Database(url))
        with watch(url) as command:
            parsed(command.line())
            server.stop()
            while b" unreachable: " not in command.line():
                pass
            server.start()
            while b" unreachable: " in (line := command.line()):
                pass
            assert parsed(line)["shards"] == "16"


def test_a_database_that_is_not_there_yet_is_waited_for(url: str) -> None:
    with PostgresProxy(url) as proxy:
        proxy.pause_listening()
        with watch(proxy.url, "--json") as command:
            look = json.loads(command.line())
            assert look["status"] is None
            assert look["unreachable"].startswith("connection failed")
            proxy.resume_listening()
            while json.loads(command.line())["status"] is None:
                pass


def test_a_change_of_the_schema_does_not_end_it(url: str) -> None:
    with PostgresProxy(url) as proxy:
        proxy.refuse(3, message="(OC001)", matching='"outbox".dead_letters')
        with watch(proxy.url, "--json") as command:
            assert json.loads(command.line())["status"] is not None


def test_without_the_statistics_of_postgresql_rates_are_unknown(url: str) -> None:
    with PostgresProxy(url) as proxy:
        proxy.refuse(None, sqlstate="42883", message="no such function", matching="pg_stat")
        with watch(proxy.url) as command:
            for _ in range(3):
                assert parsed(command.line())["in_per_s"] == "unknown"


def test_missing_tables_end_it_with_code_78(database_url: str) -> None:
    with watch(database_url) as command:
        done = command.wait()
    assert done.code == 78
    assert "dsql-outbox schema apply" in done.err


def test_on_a_terminal_it_is_drawn_anew(url: str, sql: psycopg.Connection[Any]) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " VALUES ('relay-a', clock_timestamp(), 10, '[]', 'default')"
    )
    with Terminal(120, "status", "--database", url, *QUICKLY) as terminal:
        terminal.until(lambda _: terminal.output.count(b"relay-a") >= 3)
        terminal.press_ctrl_c()
        assert terminal.finish() == 0
    shown = terminal.output
    assert b"breaker" in shown
    assert b"rows/s in" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_must_be_above_zero(interval: str) -> None:
    with Command("status", "--watch", "--interval", interval) as command:
        assert command.wait().code == 2


def test_rates_are_taken_over_some_looks_and_begin_anew_with_the_statistics() -> None:
    meter = Meter()
    assert meter.rates(Counters(100, 50), 0.0) is None
    rates = meter.rates(Counters(140, 60), 2.0)
    assert rates is not None
    assert (rates.in_per_second, rates.out_per_second) == (20.0, 5.0)
    assert meter.rates(Counters(0, 0), 4.0) is None
    assert meter.rates(Counters(3, 0), 5.0).in_per_second == 3.0  # type: ignore[union-attr]
    assert meter.rates(None, 6.0) is None
    assert meter.rates(Counters(3, 0), 7.0) is None


def test_what_was_long_ago_leaves_the_rates() -> None:
    meter = Meter()
    found = [meter.rates(Counters(100 * (n > 0), 0), float(n)) for n in range(8)]
    assert found[1] is not None
    assert found[1].in_per_second == 100.0
    assert found[-1] is not None
    assert found[-1].in_per_second == 0.0


def test_the_breaker_is_open_when_one_who_owns_shards_has_withdrawn(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    sql.execute(
        "INSERT INTO outbox.outbox_publishers (owner, seen_at, lease_seconds, paused, target)"
        " VALUES ('relay-a', clock_timestamp(), 10, '[]', 'default')"
    )
    sql.execute(
        "UPDATE outbox.outbox_leases SET owner = 'relay-a',"
        " expires_at = clock_timestamp() + interval '1 h'"
    )
    with watch(url) as command:
        look = parsed(command.line())
        assert (look["breaker"], look["leased"]) == ("closed", "3")
        sql.execute("DELETE FROM outbox.outbox_publishers")
        while parsed(command.line())["breaker"] == "closed":
            pass
        sql.execute("UPDATE outbox.outbox_leases SET expires_at = clock_timestamp()")
        while parsed(line := command.line())["breaker"] == "open":
            pass
        assert (parsed(line)["breaker"], parsed(line)["leased"]) == ("unknown", "0")
