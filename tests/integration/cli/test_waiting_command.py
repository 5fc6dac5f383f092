"""``dsql-outbox waiting``, and ``failures`` by topic and of one subject."""

import json
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.publisher.given_up_messages import event

from dsql_outbox.cli import main
from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer


@pytest.fixture
def ids(url: str) -> list[UUID]:
    """Two messages of one subject that wait, and one of another."""
    with Writer(Database(url)) as writer:
        return [writer.write(event(subject)).event_id for subject in ("a", "a", "b")]


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


def test_waiting_messages_are_listed_by_key_and_topic(url: str, ids: list[UUID]) -> None:
    header, *lines = run(url, "waiting", "--key", "Car/a").stdout.splitlines()
    assert header.split() == ["event", "since", "shard", "topic", "subject"]
    assert [line.split("  ")[0] for line in lines] == list(map(str, ids[:2]))
    assert [line.split()[-1] for line in lines] == ["Car/a@1", "Car/a@2"]
    done = run(url, "waiting", "--topic", "events.CarMoved", "--key", "Car/b", "--json")
    assert json.loads(done.stdout)["eventId"] == str(ids[2])
    assert run(url, "waiting", "--topic", "other").stdout == "no such message waits\n"
    assert run(url, "waiting", "--topic", "other", "--json").stdout == ""


@pytest.mark.usefixtures("ids")
def test_a_list_that_is_cut_says_so(url: str) -> None:
    done = run(url, "waiting", "--limit", 2)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "there are more: narrow the filter, or raise --limit 2\n"
    assert run(url, "waiting", "--limit", 3).stderr == ""


def test_missing_tables_end_it_with_code_78(database_url: str) -> None:
    assert run(database_url, "waiting").exit_code == 78


# --- failures --------------------------------------------------------------------------


@pytest.fixture
def failed(sql: psycopg.Connection, ids: list[UUID]) -> list[UUID]:
    """The messages of `ids`, all of them blocked."""
    sql.execute(
        "INSERT INTO outbox.outbox_failures (event_id, position, shard, attempts, last_error,"
        " retry_at) SELECT event_id, position, shard, 1, 'no', 'infinity' FROM outbox.outbox"
    )
    return ids


def test_failures_are_listed_by_topic(
    url: str, sql: psycopg.Connection, failed: list[UUID]
) -> None:
    sql.execute("UPDATE outbox.outbox SET topic = 'other' WHERE event_id = %s", [failed[2]])
    done = run(url, "failures", "list", "--topic", "other")
    assert done.stdout == f"{failed[2]}  blocked  1 attempt  Car/b  no\n"


def test_a_message_behind_another_is_left_alone_and_said_to_be(
    url: str, failed: list[UUID]
) -> None:
    done = run(url, "failures", "bury", "--id", failed[1])
    assert done.exit_code == 1
    assert done.stdout == f"{failed[1]}  blocked, behind another  1 attempt  Car/a  no\n"
    assert done.stderr == (
        "0 messages moved to the dead letters\n"
        "1 message left alone: act on the message before it first\n"
    )
    done = run(url, "failures", "bury", "--key", "Car/a")
    assert (done.exit_code, done.stderr) == (0, "2 messages moved to the dead letters\n")
