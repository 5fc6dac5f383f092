"""``dsql-outbox dead-letters`` and ``failures``, as an operator has them."""

import json
import os
import pty
import subprocess
import sys
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.publisher.given_up_messages import event, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.cli import main
from dsql_outbox.outbox import Database
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


def lines(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def given_up(url: str, *subjects: str, policy: str = "release") -> list[UUID]:
    """Write an event for each subject, and let the broker refuse all of them."""
    events = [event(subject, n) for n, subject in enumerate(subjects)]
    database = Database(url)
    with Writer(database) as writer:
        for each in events:
            writer.write(each)
    ids = [each.id for each in events]
    anyio.run(partial(relay_all, database, MemorySink(), refused=ids, on_dead_letter=policy))
    return ids


# --- list, show ------------------------------------------------------------------------


def test_a_list_for_people_has_a_line_a_letter_and_no_payload(url: str) -> None:
    (event_id,) = given_up(url, "a b")
    header, line = run(url, "dead-letters", "list").stdout.splitlines()
    assert header.split() == ["event", "died", "attempts", "replay", "topic", "subject", "error"]
    assert line.startswith(str(event_id))
    assert line.endswith("1         0       events.CarMoved  Car/a%20b  Not for me")
    assert header.index("error") == line.index("Not for me")


def test_nothing_to_list_is_said(url: str) -> None:
    assert run(url, "dead-letters", "list").stdout == "no dead letters\n"
    assert run(url, "failures", "list").stdout == "no failures\n"
    assert run(url, "dead-letters", "list", "--json").stdout == ""


def test_json_has_an_object_a_line_and_the_payload_only_when_asked(url: str) -> None:
    ids = given_up(url, "a", "b")
    bare = lines(run(url, "dead-letters", "list", "--json"))
    assert {line["eventId"] for line in bare} == set(map(str, ids))
    assert [line["payload"] for line in bare] == [None, None]
    full = lines(run(url, "dead-letters", "list", "--json", "--payload", "--key", "Car/b"))
    assert [line["eventId"] for line in full] == [str(ids[1])]
    assert json.loads(full[0]["payload"])["eventHeader"]["uuid"] == str(ids[1])
    assert set(full[0]) == {
        *("eventId", "diedAt", "subject", "subjectVersion", "topic", "error", "attempts"),
        *("replay", "createdAt", "shard", "position", "headers", "payloadBytes", "payload"),
    }


def test_a_list_that_is_cut_says_so(url: str) -> None:
    given_up(url, "a", "b")
    cut = run(url, "dead-letters", "list", "--json", "--limit", 1)
    assert len(lines(cut)) == 1
    assert cut.stderr == "there are more: narrow the filter, or raise --limit 1\n"
    assert run(url, "dead-letters", "list", "--limit", 2).stderr == ""


def test_one_letter_is_shown_with_its_headers_and_its_payload_only_when_asked(url: str) -> None:
    (event_id,) = given_up(url, "a")
    shown = run(url, "dead-letters", "show", event_id).stdout
    assert "error                   Not for me\n" in shown
    assert "header entities         Car/a@1\n" in shown
    assert "bytes; --payload shows them\n" in shown
    assert "eventHeader" not in shown
    assert "eventHeader" in run(url, "dead-letters", "show", event_id, "--payload").stdout
    missing = run(url, "dead-letters", "show", uuid4())
    assert missing.exit_code == 1
    assert "Error: no dead letter has the event id" in missing.stderr


# --- replay ----------------------------------------------------------------------------


def test_a_dry_run_says_which_would_be_replayed_and_the_real_one_does_it(
    url: str, sql: psycopg.Connection
) -> None:
    ids = given_up(url, "a", "b")
    words = ("dead-letters", "replay", "--id", ids[0], "--reason", "ticket 77")
    dry = run(url, *words, "--dry-run", "--list")
    assert dry.stdout == f"{ids[0]}  would be replay 1  Car/a\n"
    assert dry.stderr == "1 event would be replayed\n"
    assert count(sql, "outbox") == 0
    summary = json.loads(run(url, *words, "--dry-run", "--json").stdout)
    assert (summary["events"], summary["types"]) == (1, {"CarMoved": 1})
    done = run(url, *words)
    assert (done.exit_code, done.stdout) == (0, f"{ids[0]}  replay 1  Car/a\n")
    assert done.stderr == "1 replayed\n"
    assert sql.execute("SELECT event_id FROM outbox.dead_letters").fetchall() == [(ids[1],)]
    assert sql.execute("SELECT reason FROM outbox.outbox_replays").fetchall() == [("ticket 77",)]


def test_an_id_without_a_letter_fails_the_command(url: str) -> None:
    (event_id,) = given_up(url, "a")
    done = run(url, "dead-letters", "replay", "--id", event_id, "--id", uuid4(), "--json")
    assert done.exit_code == 1
    (line,) = lines(done)
    assert (line["eventId"], line["status"], line["replay"]) == (str(event_id), "replayed", 1)
    assert done.stderr.splitlines() == ["1 replayed", "1 of the ids: no such dead letter"]


def test_a_replay_that_ends_at_its_limit_says_so(url: str, sql: psycopg.Connection) -> None:
    given_up(url, "a", "b", "c")
    first = run(url, "dead-letters", "replay", "--all", "--limit", 2)
    assert first.stderr.splitlines() == ["2 replayed", "--limit 2 is reached: there may be more"]
    assert run(url, "dead-letters", "replay", "--all", "--limit", 2).stderr == "1 replayed\n"
    assert count(sql, "outbox") == 3


def test_an_event_that_died_twice_has_two_letters_to_show(
    url: str, sql: psycopg.Connection
) -> None:
    (event_id,) = given_up(url, "a")
    sql.execute(
        "INSERT INTO outbox.dead_letters SELECT event_id, died_at + interval '1 h', shard,"
        " position, previous_position, subject_type, subject_id, subject_version, topic,"
        " headers, payload, created_at, 'Again', attempts, 1 FROM outbox.dead_letters"
    )
    first, second = run(url, "dead-letters", "show", event_id).stdout.split("\n\n")
    assert ("Not for me" in first, "Again" in second) == (True, True)
    assert [
        line["replay"] for line in lines(run(url, "dead-letters", "show", event_id, "--json"))
    ] == [0, 1]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("dead-letters", "replay"), {"dead_letters": 0, "outbox": 2, "outbox_failures": 1}),
        (("dead-letters", "drop", "--yes"), {"dead_letters": 0, "outbox": 1, "outbox_failures": 1}),
        (("failures", "retry"), {"dead_letters": 1, "outbox": 1, "outbox_failures": 0}),
        (("failures", "bury"), {"dead_letters": 2, "outbox": 0, "outbox_failures": 0}),
    ],
)
def test_everything_is_touched_only_when_told_so(
    url: str, sql: psycopg.Connection, words: tuple[str, ...], left: dict[str, int]
) -> None:
    given_up(url, "a")
    given_up(url, "b", policy="block")
    refused = run(url, *words)
    assert refused.exit_code == 2
    assert "no filter is given: pass one, or --all" in refused.stderr
    assert [count(sql, table) for table in left] == [1, 1, 1]
    assert run(url, *words, "--all").exit_code == 0
    assert {table: count(sql, table) for table in left} == left


# --- drop ------------------------------------------------------------------------------


def test_a_drop_is_refused_where_nobody_can_be_asked(url: str, sql: psycopg.Connection) -> None:
    given_up(url, "a", "b", "c")
    refused = run(url, "dead-letters", "drop", "--error", "not for me")
    assert refused.exit_code == 2
    assert "Drop 3 dead letters for good? There is no terminal to ask: pass --yes" in refused.stderr
    assert count(sql, "dead_letters") == 3
    dry = run(url, "dead-letters", "drop", "--error", "not for me", "--limit", 2, "--dry-run")
    assert (len(dry.stdout.splitlines()), dry.stderr) == (2, "2 dead letters would be dropped\n")
    assert count(sql, "dead_letters") == 3
    done = run(url, "dead-letters", "drop", "--error", "not for me", "--limit", 2, "--yes")
    assert done.stderr == "2 dead letters dropped\n"
    assert count(sql, "dead_letters") == 1
    assert count(sql, "business_events") == 3


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1)])
def test_on_a_terminal_a_drop_asks(
    url: str, sql: psycopg.Connection, answer: bytes, code: int, left: int
) -> None:
    given_up(url, "a")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsql_outbox", "dead-letters", "drop", "--all", "--database", url],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, answer)
    _, error = process.communicate(timeout=20)
    os.close(ours)
    assert b"Drop 1 dead letter for good? [y/N]" in error
    assert process.returncode == code
    assert count(sql, "dead_letters") == left


# --- failures --------------------------------------------------------------------------


def test_blocked_messages_are_listed_and_can_be_tried_anew(
    url: str, sql: psycopg.Connection
) -> None:
    (event_id,) = given_up(url, "a", policy="block")
    assert run(url, "failures", "list", "--blocked").stdout == (
        f"{event_id}  blocked  1 attempt  Car/a  Not for me\n"
    )
    dry = run(url, "failures", "retry", "--key", "Car/a", "--dry-run")
    assert dry.stderr == "1 message would be tried again\n"
    assert count(sql, "outbox_failures") == 1
    done = run(url, "failures", "retry", "--key", "Car/a", "--json")
    (line,) = lines(done)
    assert (line["eventId"], line["retryAt"], line["error"]) == (str(event_id), None, "Not for me")
    assert done.stderr == "1 message will be tried again\n"
    assert (count(sql, "outbox_failures"), count(sql, "outbox")) == (0, 1)


def test_blocked_messages_can_be_given_up(url: str, sql: psycopg.Connection) -> None:
    ids = given_up(url, "a", "b", policy="block")
    done = run(url, "failures", "bury", "--id", ids[1])
    assert done.stderr == "1 message moved to the dead letters\n"
    assert sql.execute("SELECT event_id FROM outbox.dead_letters").fetchall() == [(ids[1],)]
    assert run(url, "failures", "bury", "--id", ids[1]).exit_code == 1, "it is gone"
    assert sql.execute("SELECT event_id FROM outbox.outbox_failures").fetchall() == [(ids[0],)]


# --- wrong usage -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--key", "Car"), "'Car' is no TYPE/ID, as in Loan/LOAN-7"),
        (
            ("list", "--since", "yesterday"),
            "'yesterday' is not a time such as 2026-11-24T18:00:00Z",
        ),
        (("list", "--id", "7"), "'7' is not a valid UUID"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("list", "--payload"), "--payload needs --json"),
        (("replay", "--all", "--rate", "0"), "0.0 is not in the range"),
        (("replay", "--all", "--limit", "100001"), "100001 is not in the range"),
    ],
)
def test_wrong_usage_is_refused(url: str, words: tuple[str, ...], said: str) -> None:
    done = run(url, "dead-letters", *words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    "words", [("dead-letters", "list"), ("failures", "list"), ("replay", str(uuid4()))]
)
def test_missing_tables_end_it_with_code_78(database_url: str, words: tuple[str, ...]) -> None:
    done = run(database_url, *words)
    assert done.exit_code == 78
    assert "run `dsql-outbox schema apply`" in done.stderr
