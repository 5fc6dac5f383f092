"""``dsql-outbox messages`` list, show, retry and drop, as an operator has them."""

import json
import os
import pty
import re
import subprocess
import sys
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.pty_terminal import Terminal
from tests.support.publisher.given_up_messages import event, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.cli.main import main
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


def test_a_list_for_people_has_two_lines_a_letter_and_no_payload(url: str) -> None:
    (event_id,) = given_up(url, "a b")
    first, second = run(url, "messages", "list").stdout.splitlines()
    assert re.fullmatch(rf"{event_id}  dead     [-0-9]{{10}} [:0-9]{{8}}  Car/a b@1", first)
    assert second == "  events.CarMoved, 1 attempt: Not for me"


def test_a_list_fits_a_terminal_of_80_columns_and_is_whole_in_a_pipe(
    url: str, sql: psycopg.Connection
) -> None:
    given_up(url, "a")
    sql.execute("UPDATE outbox.dead_letters SET error = repeat('too long ', 40)")
    with Terminal(80, "messages", "list", "--database", url) as terminal:
        assert terminal.finish() == 0
    shown = [
        line
        for line in terminal.output.decode().splitlines()
        if "CarMoved" in line or "Car/a" in line
    ]
    assert [len(line) <= 80 for line in shown] == [True, True]
    assert shown[1].endswith("…")
    assert "too long " * 39 in run(url, "messages", "list").stdout


def test_nothing_to_list_is_said(url: str) -> None:
    assert run(url, "messages", "list").stdout == "no messages\n"
    assert run(url, "messages", "list", "--json").stdout == ""


def test_json_has_an_object_a_line_and_the_payload_only_when_asked(url: str) -> None:
    ids = given_up(url, "a", "b")
    bare = lines(run(url, "messages", "list", "--json"))
    assert {line["eventId"] for line in bare} == set(map(str, ids))
    assert [line["payload"] for line in bare] == [None, None]
    full = lines(run(url, "messages", "list", "--json", "--payload", "--subject", "Car/b"))
    assert [line["eventId"] for line in full] == [str(ids[1])]
    assert json.loads(full[0]["payload"])["eventHeader"]["uuid"] == str(ids[1])
    assert set(full[0]) == {
        *("state", "eventId", "subject", "subjectVersion", "topic", "type", "createdAt"),
        *("attempts", "error", "retryAt", "behind", "paused", "diedAt", "replay", "shard"),
        *("position", "headers", "payloadBytes", "target", "payload"),
    }


def test_a_list_that_is_cut_says_so(url: str) -> None:
    given_up(url, "a", "b")
    cut = run(url, "messages", "list", "--json", "--limit", 1)
    assert len(lines(cut)) == 1
    assert cut.stderr == "there are more: narrow the filter, or raise --limit 1\n"
    assert run(url, "messages", "list", "--limit", 2).stderr == ""


def test_an_error_with_places_has_a_line_in_a_list_and_a_line_for_each_place(
    url: str, sql: psycopg.Connection
) -> None:
    (event_id,) = given_up(url, "a")
    error = "the function to apply raised KeyError\n  /srv/a b.py:7 apply\n  /srv/c.py:12 C.d"
    sql.execute("UPDATE outbox.dead_letters SET error = %s", [error])
    listed = run(url, "messages", "list").stdout.splitlines()
    raised = "the function to apply raised KeyError at a b.py:7 apply"
    assert [line.endswith(raised) for line in listed] == [0, 1]
    assert "/srv" not in listed[1]
    shown = run(url, "messages", "show", event_id).stdout
    places = (
        r"^error +the function to apply raised KeyError\n +/srv/a b.py:7 apply\n +/srv/c.py:12 C.d$"
    )
    assert re.search(places, shown, re.MULTILINE)


def test_one_letter_is_shown_with_its_headers_and_its_payload_only_when_asked(url: str) -> None:
    (event_id,) = given_up(url, "a")
    shown = run(url, "messages", "show", event_id).stdout
    assert re.search(r"^error +Not for me$", shown, re.MULTILINE)
    assert re.search(r"^header entities +Car/a@1$", shown, re.MULTILINE)
    assert "bytes; --payload shows them\n" in shown
    assert "eventHeader" not in shown
    assert "eventHeader" in run(url, "messages", "show", event_id, "--payload").stdout
    missing = run(url, "messages", "show", uuid4())
    assert missing.exit_code == 1
    assert "Error: no undelivered message has the event id" in missing.stderr
    assert "`dsql-outbox event " in missing.stderr


# --- replay ----------------------------------------------------------------------------


def test_a_dry_run_says_which_would_be_replayed_and_the_real_one_does_it(
    url: str, sql: psycopg.Connection
) -> None:
    ids = given_up(url, "a", "b")
    words = ("messages", "retry", "--id", ids[0], "--reason", "ticket 77")
    dry = run(url, *words, "--dry-run")
    assert re.search(r"^topic +events\.CarMoved +1$", dry.stdout, re.MULTILINE)
    assert dry.stderr == "1 message would be retried\n"
    assert count(sql, "outbox") == 0
    summary = json.loads(run(url, *words, "--dry-run", "--json").stdout)
    assert (summary["events"], summary["types"]) == (1, {"CarMoved": 1})
    done = run(url, *words)
    assert (done.exit_code, done.stdout) == (0, f"{ids[0]}  replay 1  Car/a\n")
    assert done.stderr == "1 retried\n"
    assert sql.execute("SELECT event_id FROM outbox.dead_letters").fetchall() == [(ids[1],)]
    assert sql.execute("SELECT reason FROM outbox.outbox_replays").fetchall() == [("ticket 77",)]


def test_an_id_without_a_letter_fails_the_command(url: str) -> None:
    (event_id,) = given_up(url, "a")
    done = run(url, "messages", "retry", "--id", event_id, "--id", uuid4(), "--json")
    assert done.exit_code == 1
    line, counts = lines(done)
    assert (line["eventId"], line["status"], line["replay"]) == (str(event_id), "retried", 1)
    assert counts["retried"] == 1
    assert done.stderr.splitlines() == ["1 of the ids: no failing or dead message"]


def test_a_replay_that_ends_at_its_limit_says_so(url: str, sql: psycopg.Connection) -> None:
    given_up(url, "a", "b", "c")
    first = run(url, "messages", "retry", "--all", "--limit", 2)
    assert first.stderr.splitlines() == ["2 retried", "--limit 2 is reached: there may be more"]
    assert run(url, "messages", "retry", "--all", "--limit", 2).stderr == "1 retried\n"
    assert count(sql, "outbox") == 3


def test_an_event_that_died_twice_has_two_letters_to_show(
    url: str, sql: psycopg.Connection
) -> None:
    (event_id,) = given_up(url, "a")
    sql.execute(
        "INSERT INTO outbox.dead_letters SELECT event_id, died_at + interval '1 h', shard,"
        " position, previous_position, subject_type, subject_id, subject_version, topic,"
        " headers, payload_size, created_at, 'Again', attempts, 1 FROM outbox.dead_letters"
    )
    second, first = run(url, "messages", "show", event_id).stdout.split("\n\n")
    assert ("Not for me" in first, "Again" in second) == (True, True)
    assert [line["replay"] for line in lines(run(url, "messages", "show", event_id, "--json"))] == [
        1,
        0,
    ]


def test_a_dry_run_that_finds_nothing_says_what_would_be_done(url: str) -> None:
    dry = run(url, "messages", "retry", "--state", "dead", "--all", "--dry-run")
    assert (dry.exit_code, dry.stderr) == (0, "0 messages would be retried\n")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("retry",), {"dead_letters": 0, "outbox": 2, "outbox_failures": 0}),
        (("retry", "--state", "dead"), {"dead_letters": 0, "outbox": 2, "outbox_failures": 1}),
        (("retry", "--state", "failing"), {"dead_letters": 1, "outbox": 1, "outbox_failures": 0}),
        (
            ("drop", "--yes", "--state", "dead"),
            {"dead_letters": 0, "outbox": 1, "outbox_failures": 1},
        ),
        (
            ("drop", "--yes", "--state", "failing"),
            {"dead_letters": 2, "outbox": 0, "outbox_failures": 0},
        ),
    ],
)
def test_everything_is_touched_only_when_told_so(
    url: str, sql: psycopg.Connection, words: tuple[str, ...], left: dict[str, int]
) -> None:
    given_up(url, "a")
    given_up(url, "b", policy="block")
    refused = run(url, "messages", *words)
    assert refused.exit_code == 2
    assert "pass a filter (--state alone is none), or --all" in refused.stderr
    assert [count(sql, table) for table in left] == [1, 1, 1]
    assert run(url, "messages", *words, "--all").exit_code == 0
    assert {table: count(sql, table) for table in left} == left


# --- drop ------------------------------------------------------------------------------


def test_a_drop_is_refused_where_nobody_can_be_asked(url: str, sql: psycopg.Connection) -> None:
    given_up(url, "a", "b", "c")
    words = ("messages", "drop", "--state", "dead", "--error", "not for me")
    refused = run(url, *words)
    assert refused.exit_code == 2
    assert "Delete 3 messages for good? There is no terminal to ask: pass --yes" in refused.stderr
    assert count(sql, "dead_letters") == 3
    dry = run(url, *words, "--limit", 2, "--dry-run")
    assert (len(dry.stdout.splitlines()), dry.stderr) == (4, "2 messages would be deleted\n")
    assert count(sql, "dead_letters") == 3
    done = run(url, *words, "--limit", 2, "--yes")
    assert done.stderr == "2 messages deleted\n"
    assert count(sql, "dead_letters") == 1
    assert count(sql, "business_events") == 3


def test_a_drop_names_its_state(url: str, sql: psycopg.Connection) -> None:
    (event_id,) = given_up(url, "a")
    refused = run(url, "messages", "drop", "--id", event_id, "--yes")
    assert refused.exit_code == 2
    assert "give --state failing" in refused.stderr
    assert count(sql, "dead_letters") == 1


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1)])
def test_on_a_terminal_a_drop_asks(
    url: str, sql: psycopg.Connection, answer: bytes, code: int, left: int
) -> None:
    given_up(url, "a")
    words = ("messages", "drop", "--state", "dead", "--all")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsql_outbox", *words, "--database", url],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, answer)
    _, error = process.communicate(timeout=20)
    os.close(ours)
    assert b"Delete 1 message for good? [y/N]" in error
    assert process.returncode == code
    assert count(sql, "dead_letters") == left


# --- failing and waiting messages ------------------------------------------------------


def test_blocked_messages_are_listed_and_can_be_tried_anew(
    url: str, sql: psycopg.Connection
) -> None:
    (event_id,) = given_up(url, "a", policy="block")
    first, second = run(url, "messages", "list", "--blocked").stdout.splitlines()
    assert first.startswith(f"{event_id}  failing  ")
    assert second == "  events.CarMoved, blocked, 1 attempt: Not for me"
    dry = run(url, "messages", "retry", "--subject", "Car/a", "--dry-run")
    assert dry.stderr == "1 message would be retried\n"
    assert count(sql, "outbox_failures") == 1
    done = run(url, "messages", "retry", "--subject", "Car/a", "--json")
    told, counts = lines(done)
    assert (told["eventId"], told["status"], told["replay"]) == (str(event_id), "retried", None)
    assert counts["retried"] == 1
    assert (count(sql, "outbox_failures"), count(sql, "outbox")) == (0, 1)


def test_blocked_messages_can_be_given_up(url: str, sql: psycopg.Connection) -> None:
    ids = given_up(url, "a", "b", policy="block")
    words = ("messages", "drop", "--state", "failing", "--id", ids[1], "--yes")
    done = run(url, *words)
    assert done.stderr == "1 message moved to the dead letters\n"
    assert sql.execute("SELECT event_id FROM outbox.dead_letters").fetchall() == [(ids[1],)]
    assert run(url, *words).exit_code == 1, "it is gone"
    assert sql.execute("SELECT event_id FROM outbox.outbox_failures").fetchall() == [(ids[0],)]


def test_one_command_tries_failing_and_dead_messages_again(
    url: str, sql: psycopg.Connection
) -> None:
    (dead,) = given_up(url, "a")
    (failing,) = given_up(url, "b", policy="block")
    done = run(url, "messages", "retry", "--id", dead, "--id", failing)
    assert done.stdout.splitlines() == [f"{failing}  retry  Car/b", f"{dead}  replay 1  Car/a"]
    assert done.stderr == "2 retried\n"
    assert (count(sql, "outbox_failures"), count(sql, "dead_letters")) == (0, 0)


@pytest.fixture
def ids(url: str) -> list[UUID]:
    """Two messages of one subject that wait, and one of another."""
    with Writer(Database(url)) as writer:
        return [writer.write(event(subject)).event_id for subject in ("a", "a", "b")]


def test_waiting_messages_are_listed_by_subject_and_topic(url: str, ids: list[UUID]) -> None:
    found = run(url, "messages", "list", "--subject", "Car/a").stdout.splitlines()
    assert [line.split("  ")[:2] for line in found[::2]] == [[str(n), "waiting"] for n in ids[:2]]
    assert [line.split()[-1] for line in found[::2]] == ["Car/a@1", "Car/a@2"]
    assert found[1::2] == ["  events.CarMoved", "  events.CarMoved, behind another"]
    words = ("messages", "list", "--topic")
    (told,) = lines(run(url, *words, "events.CarMoved", "--subject", "Car/b", "--json"))
    assert told["eventId"] == str(ids[2])
    assert run(url, *words, "other").stdout == "no messages\n"
    done = run(url, "messages", "retry", "--id", ids[0])
    assert (done.exit_code, done.stdout) == (1, ""), "it has not failed"
    assert done.stderr.splitlines()[-1] == "1 of the ids: no failing or dead message"


@pytest.fixture
def failed(sql: psycopg.Connection, ids: list[UUID]) -> list[UUID]:
    """The messages of `ids`, all of them blocked."""
    sql.execute(
        "INSERT INTO outbox.outbox_failures (event_id, position, shard, attempts, last_error,"
        " retry_at) SELECT event_id, position, shard, 1, 'no', 'infinity' FROM outbox.outbox"
    )
    return ids


def test_a_message_behind_another_is_left_alone_and_said_to_be(
    url: str, failed: list[UUID]
) -> None:
    words = ("messages", "drop", "--state", "failing", "--yes")
    done = run(url, *words, "--id", failed[1])
    assert done.exit_code == 1
    assert done.stdout.startswith(f"{failed[1]}  failing  ")
    assert "  events.CarMoved, blocked, behind another, 1 attempt: no" in done.stdout
    assert done.stderr == (
        "0 messages moved to the dead letters\n"
        "1 message left alone: act on the message before it first\n"
    )
    done = run(url, *words, "--subject", "Car/a")
    assert (done.exit_code, done.stderr) == (0, "2 messages moved to the dead letters\n")


# --- wrong usage -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--subject", "Car/"), "'Car/' is no TYPE/ID, as in Loan/LOAN-7"),
        (("list", "--state", "lost"), "'lost' is not one of"),
        (("retry", "--state", "waiting", "--all"), "'waiting' is not one of"),
        (("list", "--state", "dead", "--blocked"), "is not blocked"),
        (("list", "--state", "waiting", "--error", "no"), "a waiting message has no error"),
        (("list", "--topic", "\udcff"), "topic must be UTF-8"),
        (
            ("list", "--since", "yesterday"),
            "'yesterday' is no time in ISO 8601, such as 2026-11-24T18:00Z, and no age",
        ),
        (("list", "--id", "7"), "'7' is no id of an event, a UUID"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("list", "--payload"), "--payload needs --json"),
        (("retry", "--all", "--rate", "0"), "0.0 is not in the range"),
        (("retry", "--all", "--limit", "100001"), "100001 is not in the range"),
    ],
)
def test_wrong_usage_is_refused(url: str, words: tuple[str, ...], said: str) -> None:
    done = run(url, "messages", *words)
    assert done.exit_code == 2
    assert said in done.stderr
