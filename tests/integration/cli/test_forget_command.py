"""The command `forget`: what it says before it runs, its report, and what it refuses."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.commands import Command
from tests.support.pty_terminal import Terminal

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


@pytest.mark.postgres_only("DSQL analyzes by itself")
def test_an_estimate_that_was_too_low_is_not_shown(url: str) -> None:
    words = ("forget", "--before", "0s", "--dry-run")
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("ANALYZE outbox.business_events")
    assert run(url, *words).stdout.endswith("read 4 of about 4 events\n")
    with Writer(Database(url)) as writer:
        writer.write(Event.new("Sold", [Entity("Car", "4")]))
    assert run(url, *words).stdout.endswith("read 5 events\n")


KEEPING = ("forget", "--before", "0s", "--every", "1s", "--yes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_goes_on_until_a_signal_and_prints_a_line_per_pass(
    url: str, number: signal.Signals
) -> None:
    with Command(*KEEPING, "--database", url) as command:
        first = command.line().decode()
        assert re.search(r"before \S+ \S+ UTC: 3 events forgotten, 1 kept", first)
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute("DELETE FROM outbox.outbox")
        while "1 event forgotten" not in (line := command.line().decode()):
            assert "0 events forgotten" in line
        command.signal(number)
        ended = command.wait()
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.err
    assert stored(url) == 0


def test_every_prints_json_of_each_pass(url: str) -> None:
    with Command(*KEEPING, "--json", "--database", url) as command:
        told = json.loads(command.line())
        command.signal(signal.SIGTERM)
        assert command.wait().code == 0
    assert told["done"]["events"] == 3
    assert told["error"] is None


@pytest.mark.postgres_only("it is watched on a terminal")
def test_a_terminal_shows_when_the_next_pass_begins(url: str) -> None:
    with Terminal(100, *KEEPING[:4], "1h", "--yes", "--database", url) as terminal:
        terminal.until(lambda lines: "the next pass begins at" in lines[-1])
        assert any("3 events forgotten" in line for line in terminal.lines)
        terminal.press_ctrl_c()
        assert terminal.finish() == 0, terminal.lines
