"""``dsql-outbox write`` among pipes, terminals and signals, all of them real."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.commands import Command, lines
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer.written_events import event, receipts, summary


def test_a_receipt_comes_as_soon_as_it_is_known(url: str) -> None:
    with Command("write", "--database", url) as command:
        for n in range(3):
            sent = event("car", n)
            command.feed(sent + b"\n")
            assert receipts(command.line())[0].entities[0].version == n + 1
        assert command.finish().code == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_reading_and_says_where(url: str, number: signal.Signals, code: int) -> None:
    with Command("write", "--database", url) as command:
        command.feed(lines(event(f"car-{n}") for n in range(3)) + b'{"half')
        for _ in range(3):
            command.line()
        command.signal(number)
        done = command.wait()
    assert (done.code, done.out) == (code, b"")
    assert summary(done.err)["stored"] == 3
    assert done.err.endswith("stopped after line 3 of -\n")


def test_a_signal_lets_what_was_read_be_stored(proxy: PostgresProxy) -> None:
    held = proxy.hold()
    with Command("write", "--database", proxy.url) as command:
        command.feed(lines(event("car", n) for n in range(4)))
        held.arrived()
        command.signal(signal.SIGINT)
        assert command.error_line() == "finishing the work in progress; Ctrl-C stops immediately\n"
        command.signal(signal.SIGTERM)  # changes nothing
        held.release()
        done = command.wait()
    assert done.code == 130
    stored = [receipt.entities[0].version for receipt in receipts(done.out)]
    assert stored == list(range(1, len(stored) + 1))
    assert len(stored) >= 1
    assert done.err.endswith(f"stopped after line {len(stored)} of -\n")


def test_a_second_ctrl_c_stops_at_once_and_says_where_to_go_on(proxy: PostgresProxy) -> None:
    with Command("write", "--database", proxy.url) as command:
        command.feed(event("a") + b"\n")
        command.line()
        held = proxy.hold()
        command.feed(lines([event("b"), event("b")]))
        held.arrived()
        command.signal(signal.SIGINT)
        command.error_line()
        command.signal(signal.SIGINT)
        done = command.wait()
        held.drop()
    assert (done.code, done.out) == (130, b"")
    assert summary(done.err)["stored"] == 1
    assert done.err.endswith("stopped; write again from line 2 of -, with --on-duplicate return\n")


def test_a_reader_that_goes_away_ends_it_quietly(url: str) -> None:
    with Command("write", "--database", url) as command:
        command.feed(event("a") + b"\n")
        command.line()
        command.close_output()
        command.feed(event("b") + b"\n")
        done = command.wait()
    assert done.code == 1
    assert summary(done.err)["stored"] == 2
    assert done.err.endswith("stopped after line 2 of -: cannot write the result: Broken pipe\n")
    assert "Traceback" not in done.err


def test_a_reader_that_does_not_read_does_not_keep_ctrl_c_from_working(url: str) -> None:
    wide = json.loads(event())
    wide["entities"] *= 700
    for n, entity in enumerate(wide["entities"]):
        wide["entities"][n] = {"entityHeader": entity["entityHeader"] | {"entityId": f"{n:0128}"}}
    with Command("write", "--database", url) as command:
        command.feed(json.dumps(wide).encode() + b"\n")
        # The receipt is longer than a pipe takes, so the command is in the midst of it.
        wait_until(lambda: command.unread() > 60_000, timeout=20)
        command.signal(signal.SIGINT)
        assert command.error_line().startswith("finishing the work in progress")
        command.signal(signal.SIGINT)
        done = command.wait()
    assert done.code == 130
    assert "write again from line 1 of -" in done.err


@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_a_closed_stream_is_nothing_else_by_mistake(
    url: str, sql: psycopg.Connection[Any], tmp_path: Path, closed: str
) -> None:
    """The next thing to be opened would get its number, be it the connection."""
    source = tmp_path / "events"
    source.write_bytes(lines(event(f"car-{n}") for n in range(5)))
    command = f'exec "{sys.executable}" -m dsql_outbox write --database "{url}" "{source}"'
    done = subprocess.run(
        ["sh", "-c", f"{command} {closed}"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, summary(done.stderr)["stored"]) == (0, 5)
    row = sql.execute("SELECT count(*) FROM outbox.business_events").fetchone()
    assert row == (5,)


def test_a_terminal_shows_the_progress_and_whole_lines_above_it(url: str, tmp_path: Path) -> None:
    source = tmp_path / "events"
    long = event("y" * 129)
    source.write_bytes(lines([event("a"), long, event("b")]))
    ours, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dsql_outbox", "write", "--database", url, str(source)],
            stdout=out,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        )
    os.close(theirs)
    shown = _everything(ours).replace(b"\r\n", b"\n").decode()
    assert process.wait(20) == 1
    assert len(receipts((tmp_path / "out").read_bytes())) == 2
    assert "conflicts  0 failed" in shown
    assert "100% read" in shown
    assert summary(shown)["stored"] == 2
    (failure,) = [line for line in shown.splitlines() if '"InvalidEvent"' in line]
    assert json.loads(failure[failure.index("{") :])["line"] == 2


def _everything(descriptor: int) -> bytes:
    """What a terminal shows until its last user has gone."""
    found = b""
    while True:
        try:
            chunk = os.read(descriptor, 4096)
        except OSError:  # EIO: the other end is closed
            os.close(descriptor)
            return found
        found += chunk
