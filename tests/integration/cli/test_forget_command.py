"""The command `forget`: what it says before it runs, its report, and what it refuses."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


@pytest.fixture
def url(outbox_url: str) -> str:
    """A database with three events that were delivered, and one that waits."""
    with Writer(Database(outbox_url)) as writer:
        writer.write_many([Event.new("Sold", [Entity("Car", f"{n}")]) for n in range(3)])
        with psycopg.connect(outbox_url, autocommit=True) as sql:
            sql.execute("DELETE FROM outbox.outbox")
        writer.write(Event.new("Sold", [Entity("Car", "0")]))
    return outbox_url


def stored(url: str) -> int:
    with psycopg.connect(url) as sql:
        return len(sql.execute("SELECT FROM outbox.business_events").fetchall())


def test_delivered_events_are_forgotten_and_reported(url: str) -> None:
    words = ("forget", "--before", "0s")
    told = "3 events would be forgotten, 1 kept: a message names them, read 4 events\n"
    assert run(url, *words, "--dry-run").stdout == told
    done = run(url, *words, "--yes", "--json", "--rate", 100, "--reason", "90 days")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "read": 4,
        "total": None,
        "events": 3,
        "kept": 1,
        "files": 0,
    }
    assert stored(url) == 1
    told = "0 events forgotten, 1 kept: a message names them, read 1 events\n"
    assert run(url, *words, "--yes").stdout == told
    assert re.search(r"forget +\S+ +\S+ +90 days", run(url, "operations").stdout)
    assert "3 forgotten" in run(url, "status").stdout


def test_without_a_terminal_it_asks_nobody_and_does_nothing(url: str) -> None:
    asked = run(url, "forget", "--before", "2026-01-02T03:00+01:00", "--archive", "/a")
    assert asked.exit_code == 2
    told = "all delivered events from before 2026-01-02 02:00 UTC, also in /a, for good?"
    assert told in asked.stderr
    assert "There is no terminal to ask: pass --yes" in asked.stderr
    assert stored(url) == 4


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 1), (b"n\n", 1, 4)])
def test_what_ends_is_said_before_anything_is_done(
    url: str, answer: bytes, code: int, left: int
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsql_outbox", "forget", "--before", "0s", "--database", url],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, answer)
    _, error = process.communicate(timeout=60)
    os.close(ours)
    for what in (b"a new event", b"a stream begins with", b"neither a replay nor a new target"):
        assert what in error
    assert b"[y/N]" in error
    assert (process.returncode, stored(url)) == (code, left)


def test_archived_events_need_their_archive(url: str, tmp_path: Path) -> None:
    assert run(url, "archive", "--before", "0s", "--to", tmp_path).exit_code == 0
    refused = run(url, "forget", "--before", "0s", "--yes")
    assert refused.exit_code == 2
    assert f"archived in {tmp_path}" in refused.stderr
    assert stored(url) == 4
    done = run(url, "forget", "--before", "0s", "--yes", "--archive", tmp_path)
    told = "3 events forgotten, 1 file removed or written anew, 1 kept: a message names them"
    assert done.stdout == f"{told}, read 1 events\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("", "Missing option '--before'"),
        ("--before soon", "Invalid value for '--before': 'soon' is no time"),
        ("--before 1d --archive ftp://a", "an archive is FOLDER or s3://BUCKET/PREFIX"),
        ("--before 1d --rate 0", "Invalid value for '--rate'"),
    ],
)
def test_what_cannot_be_is_refused(url: str, words: str, text: str) -> None:
    done = run(url, "forget", *words.split(), "--yes")
    assert done.exit_code == 2, done.output
    assert text in done.stderr
