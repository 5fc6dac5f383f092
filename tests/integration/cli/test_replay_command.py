"""``dsql-outbox messages replay``: by id, by entity, by filters; dry runs and long runs."""

import json
import signal
from functools import partial
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.commands import Command
from tests.support.commands import run as run_process
from tests.support.publisher.given_up_messages import event
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
