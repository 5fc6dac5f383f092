"""``dsql-outbox messages replay``: by id, by entity, by filters; dry runs and long runs."""

import json
import signal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.commands import Command
from tests.support.commands import run as run_process
from tests.support.publisher.given_up_messages import event
from tests.support.publisher.running_relays import count
from tests.support.waiting import wait_until

from dsql_outbox.cli import job
from dsql_outbox.cli.main import main
from dsql_outbox.cli.progress_line import lines as lines_of_progress
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer


@pytest.fixture
def ids(url: str, sql: psycopg.Connection) -> list[UUID]:
    """Four events, three of them of one car; none waits."""
    with Writer(Database(url)) as writer:
        found = [writer.write(event(subject)).event_id for subject in ("a", "a", "b", "a")]
    sql.execute("DELETE FROM outbox.outbox")
    return found


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, ["messages", "replay", "--database", url, *map(str, words)])


def lines(done: Result) -> list[dict[str, Any]]:
    """The lines of JSON of all messages, or the summary of a dry run."""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return found[:-1] if len(found) > 1 else found


def test_events_are_replayed_by_id_and_each_is_told(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    done = run(url, ids[0], ids[2], "--json", "--reason", "lost at the consumer")
    assert done.exit_code == 0
    assert done.stderr == ""
    counts = json.loads(done.stdout.splitlines()[-1])
    assert (counts["replayed"], counts["missing"]) == (2, 0)
    told = lines(done)
    assert [(t["eventId"], t["status"], t["subject"], t["replay"]) for t in told] == [
        (str(ids[0]), "replayed", "Car/a", 1),
        (str(ids[2]), "replayed", "Car/b", 1),
    ]
    positions = sql.execute("SELECT position FROM outbox.outbox ORDER BY 1").fetchall()
    assert sorted(t["position"] for t in told) == [position for (position,) in positions]
    reasons = sql.execute("SELECT DISTINCT reason FROM outbox.outbox_replays").fetchall()
    assert reasons == [("lost at the consumer",)]


def test_an_event_that_is_left_alone_fails_the_command(url: str, ids: list[UUID]) -> None:
    assert run(url, ids[0]).exit_code == 0
    assert run(url, ids[0]).exit_code == 1
    done = run(url, ids[0], stranger := uuid4())
    assert done.exit_code == 1
    told = [f"{ids[0]}  waiting  Car/a", f"{stranger}  missing  -"]
    assert sorted(done.stdout.splitlines()) == sorted(told)
    assert done.stderr == (
        "0 replayed; 1 left alone: they wait in the outbox; 1 left alone: they are not stored\n"
    )


@pytest.mark.usefixtures("ids")
def test_a_dry_run_sums_up_and_changes_nothing(url: str, sql: psycopg.Connection) -> None:
    sql.execute("UPDATE outbox.business_events SET shard = 1, saved_date = '2026-11-24 10:00Z'")
    done = run(url, "--entity", "Car/a", "--dry-run")
    assert done.stdout.splitlines() == [
        "type   CarMoved         3",
        "topic  events.CarMoved  3",
        "shard  1                3",
        "first  2026-11-24 10:00:00+00:00",
        "last   2026-11-24 10:00:00+00:00",
    ]
    assert done.stderr == "3 messages would be replayed\n"
    assert (count(sql, "outbox"), count(sql, "outbox_replays")) == (0, 0)


def test_a_dry_run_can_list_the_events(url: str, ids: list[UUID]) -> None:
    done = run(url, "--entity", "Car/a", "--dry-run", "--list")
    assert done.stdout.splitlines() == [f"{ids[n]}  would be replay 1  Car/a" for n in (0, 1, 3)]
    found = lines(run(url, "--entity", "Car/a", "--dry-run", "--list", "--json"))
    assert [line["type"] for line in found] == ["CarMoved"] * 3


def test_a_dry_run_sums_up_for_programs(url: str, ids: list[UUID]) -> None:
    run(url, ids[0])
    (found,) = lines(run(url, "--all", "--yes", "--dry-run", "--json"))
    assert found["events"] == sum(found["shards"].values()) == 3
    assert found["leftAlone"] == {"waiting": 1, "missing": 0, "unreadable": 0, "untaken": 0}
    assert (found["types"], found["topics"]) == ({"CarMoved": 3}, {"events.CarMoved": 3})
    assert found["first"] < found["last"]


@pytest.mark.usefixtures("ids")
def test_many_kinds_are_cut_short(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(Database(url)) as writer:
        for kind in ("Sold", "Sold", "Lost", "Found"):
            writer.write(Event.new(kind, [Entity("Car", kind)]))
    monkeypatch.setattr("dsql_outbox.cli.messages.replay_summary._SHOWN", 1)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("DELETE FROM outbox.outbox")
    shown = run(url, "--all", "--yes", "--dry-run").stdout.splitlines()
    assert shown[:2] == ["type   CarMoved         4", "type   3 others         4"]


def test_an_entitys_events_are_replayed_after_a_version(url: str, ids: list[UUID]) -> None:
    done = run(url, "--entity", "Car/a", "--after", 1, "--json")
    assert [line["eventId"] for line in lines(done)] == [str(ids[1]), str(ids[3])]


def test_the_source_that_is_not_stored_can_be_given(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    run(url, ids[0], "--source", "/shop")
    assert sql.execute("SELECT headers ->> 'source' FROM outbox.outbox").fetchall() == [("/shop",)]


def test_a_replay_of_all_says_what_it_costs_and_is_told_yes(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    sql.execute("ANALYZE outbox.business_events")
    period = ("--since", "2026-01-01", "--until", "2999-01-01T00:00:00Z")
    refused = run(url, *period)
    assert refused.exit_code == 2
    assert (
        "This replay reads about 4 stored events. Continue? There is no terminal to ask: pass --yes"
    ) in refused.stderr
    assert count(sql, "outbox") == 0
    done = run(url, *period, "--yes", "--json")
    assert [line["eventId"] for line in lines(done)] == [str(ids[n]) for n in (0, 1, 3, 2)]


@pytest.mark.usefixtures("ids")
def test_events_are_replayed_by_type_and_by_topic(url: str) -> None:
    with Writer(Database(url)) as writer:
        writer.write(Event.new("Sold", [Entity("Car", "c")]))
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("DELETE FROM outbox.outbox")
    done = run(url, "--type", "Sold", "--yes")
    assert (done.stdout, done.stderr) == ("", "1 replayed\n")
    done = run(url, "--topic", "events.CarMoved", "--type", "CarMoved", "--yes", "--list")
    assert len(done.stdout.splitlines()) == 4


WAYS = "give EVENT_ID.., or --entity, or a filter, or --all"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), WAYS),
        (("--after", "Car/a@1"), WAYS),
        ((uuid4(), "--entity", "Car/a"), "EVENT_ID.. takes no filter and no --after"),
        ((uuid4(), "--type", "Sold"), "EVENT_ID.. takes no filter and no --after"),
        ((uuid4(), "--after", "1"), "EVENT_ID.. takes no filter and no --after"),
        (("--entity", "Car/a", "--after", "Car/a@1"), "'Car/a@1' is no version of the entity"),
        (("--all", "--after", "12"), "'12' is no TYPE/ID@VERSION, as in Loan/LOAN-7@12"),
        (("--entity", "Car"), "'Car' is no TYPE/ID"),
        (("7",), "'7' is not a valid UUID"),
        ((uuid4(), "--rate", "-1"), "-1.0 is not in the range"),
        (("--entity", "Car/nobody"), "no event has touched entity Car/nobody of schema outbox"),
    ],
)
def test_wrong_usage_is_refused(url: str, words: tuple[object, ...], said: str) -> None:
    done = run(url, *words)
    assert done.exit_code == 2
    assert said in done.stderr


# --- a long run ------------------------------------------------------------------------


def test_ctrl_c_says_where_another_run_goes_on(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    words = ("messages", "replay", "--all", "--yes", "--list")
    env = {"DSQL_OUTBOX_DATABASE": url}
    with Command(*words, "--rate", "0.01", env=env) as command:
        assert command.line().decode() == f"{ids[0]}  replay 1  Car/a\n"
        command.signal(signal.SIGINT)
        ended = command.wait()
    assert ended.code == 130
    assert ended.err.splitlines() == [
        "finishing the work in progress; Ctrl-C stops immediately",
        "1 replayed, at Car/a@1",
        "not done; run the same command with --after Car/a@1 to continue",
    ]
    sql.execute("DELETE FROM outbox.outbox")
    done = run_process(*words, "--after", "Car/a@1", env=env)
    assert done.code == 0
    assert done.out.decode().splitlines() == [
        f"{ids[n]}  replay 1  Car/{name}" for n, name in ((1, "a"), (3, "a"), (2, "b"))
    ]


@pytest.mark.usefixtures("ids")
def test_a_second_ctrl_c_stops_at_once(url: str) -> None:
    env = {"DSQL_OUTBOX_DATABASE": url}
    with psycopg.connect(url) as other:
        other.execute("LOCK outbox.outbox_replays IN ACCESS EXCLUSIVE MODE")
        with Command("messages", "replay", "--entity", "Car/a", env=env) as command:
            waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            with psycopg.connect(url, autocommit=True) as third:
                wait_until(lambda: bool(third.execute(waits).fetchall()))
            command.signal(signal.SIGINT)
            assert "Ctrl-C stops immediately" in command.error_line()
            command.signal(signal.SIGINT)
            ended = command.wait()
    assert ended.code == 130
    assert ended.err.splitlines() == ["0 replayed", "not done; run the same command to continue"]


@pytest.mark.usefixtures("ids")
def test_a_pipe_gets_a_line_of_progress_at_times(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "progress", partial(lines_of_progress, every=0.05))
    monkeypatch.setattr("dsql_outbox.operations.event_pages._PAGE", 1)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("ANALYZE outbox.event_headers")
    shown = run(url, "--all", "--yes", "--rate", "4").stderr.splitlines()
    assert "3 replayed, read 3 of about 4 rows, at Car/a@3" in shown
    assert shown[-1] == "4 replayed"


def test_the_whole_way_as_a_process(url: str, ids: list[UUID]) -> None:
    database = {"DSQL_OUTBOX_DATABASE": url}
    for number in (1, 2):
        assert run_process("messages", "replay", ids[0], env=database).code == 0
        sent = run_process("publish", "--sink", "stdout:", "--until-empty", env=database)
        (message,) = [json.loads(line) for line in sent.out.splitlines()]
        assert message["headers"]["ce-replay"] == str(number)
        assert message["headers"]["ce-id"] == str(ids[0])


def test_a_replay_says_that_events_were_forgotten(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    sql.execute(
        "UPDATE outbox.business_events SET saved_date = '2025-01-01Z' WHERE subject_id = 'b'"
    )
    forget = ["forget", "--before", "2025-02-01", "--yes", "--database", url]
    assert CliRunner().invoke(main, forget).exit_code == 0
    told = "events saved before 2025-02-01 00:00:00 UTC may have been forgotten"
    gone = run(url, ids[2])
    assert (gone.exit_code, f"{ids[2]}  missing  -" in gone.stdout) == (1, True)
    assert told in gone.stderr
    assert told in run(url, "--entity", "Car/a", "--dry-run").stderr
    assert told not in run(url, ids[0]).stderr
    assert told not in run(url, "--type", "CarSold", "--since", "2025-02-01", "--yes").stderr
