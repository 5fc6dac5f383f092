"""``dsql-outbox replay``: by id, by entity, by time."""

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.commands import run as run_process
from tests.support.publisher.given_up_messages import event
from tests.support.publisher.running_relays import count

from dsql_outbox.cli import main
from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer


@pytest.fixture
def ids(url: str, sql: psycopg.Connection) -> list[UUID]:
    """Four events, three of them of one car; none waits."""
    with Writer(Database(url)) as writer:
        found = [writer.write(event(subject)).event_id for subject in ("a", "a", "b", "a")]
    sql.execute("DELETE FROM outbox.outbox")
    return found


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, ["replay", "--database", url, *map(str, words)])


def lines(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_events_are_replayed_by_id_and_each_is_told(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    done = run(url, ids[0], ids[2], "--json", "--reason", "lost at the consumer")
    assert done.exit_code == 0
    assert done.stderr == "2 replayed\n"
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
        "0 replayed; 1 left alone: they wait in the outbox; 1 left alone: they are not there\n"
    )


def test_a_dry_run_changes_nothing(url: str, sql: psycopg.Connection, ids: list[UUID]) -> None:
    done = run(url, "--entity", "Car/a", "--dry-run")
    assert done.stdout.splitlines() == [f"{ids[n]}  would be replay 1  Car/a" for n in (0, 1, 3)]
    assert done.stderr == "3 events would be replayed\n"
    assert (count(sql, "outbox"), count(sql, "outbox_replays")) == (0, 0)


def test_an_entitys_events_are_replayed_after_a_version(url: str, ids: list[UUID]) -> None:
    done = run(url, "--entity", "Car/a", "--after", 1, "--json")
    assert [line["eventId"] for line in lines(done)] == [str(ids[1]), str(ids[3])]


def test_the_source_that_is_not_stored_can_be_given(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    run(url, ids[0], "--source", "/shop")
    assert sql.execute("SELECT headers ->> 'source' FROM outbox.outbox").fetchall() == [("/shop",)]


def test_a_replay_by_time_says_what_it_costs_and_is_told_yes(
    url: str, sql: psycopg.Connection, ids: list[UUID]
) -> None:
    sql.execute("ANALYZE outbox.business_events")
    period = ("--since", "2026-01-01", "--until", "2999-01-01T00:00:00Z")
    refused = run(url, *period)
    assert refused.exit_code == 2
    assert (
        "A replay by time reads about 4 stored events. Go on? Nobody can be asked here: pass --yes"
    ) in refused.stderr
    assert count(sql, "outbox") == 0
    done = run(url, *period, "--yes", "--json")
    assert [line["eventId"] for line in lines(done)] == list(map(str, ids))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give EVENT_ID.., or --entity, or --since with --until"),
        ((uuid4(), "--entity", "Car/a"), "give EVENT_ID.., or --entity, or --since with --until"),
        (("--since", "2026-01-01", "--yes"), "--since and --until need each other"),
        ((uuid4(), "--after", "1"), "--after is a version of --entity"),
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


def test_the_whole_way_as_a_process(url: str, ids: list[UUID]) -> None:
    database = {"DSQL_OUTBOX_DATABASE": url}
    for number in (1, 2):
        assert run_process("replay", ids[0], env=database).code == 0
        sent = run_process("publish", "--sink", "stdout:", "--until-empty", env=database)
        (message,) = [json.loads(line) for line in sent.out.splitlines()]
        assert message["headers"]["ce-replay"] == str(number)
        assert message["headers"]["ce-id"] == str(ids[0])
