"""The demo as its user sees it."""

import re
import shlex
import signal
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.support.commands import Command, run
from tests.support.pty_terminal import Terminal
from tests.support.waiting import wait_until

from dsql_outbox import Database, Entity, Event, Writer


def test_the_demo_holds_its_invariants_and_prints_plain_lines_when_piped() -> None:
    done = run("demo", env={"COLUMNS": "64"})
    shown = done.out.decode()
    assert done.code == 0, shown + done.err
    assert shown.count("  ok ") == 6
    assert "FAIL" not in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 64
    assert re.search(r"outbox\.write\.attempt 1 conflict 40001", shown)
    assert "waited" in shown
    assert done.err == ""


@pytest.mark.slow
def test_the_demo_shows_bars_and_cuts_no_number_on_a_narrow_terminal() -> None:
    with Terminal(60, "demo", env={"TERM": "xterm-256color"}) as terminal:
        assert terminal.finish() == 0
    shown = terminal.output.decode()
    assert "━" in shown
    assert "40/40" in shown
    assert "\x1b[" in shown
    screen = "\n".join(terminal.lines)
    assert re.search(r"^hot +LoanPaymentSubmitted( +\d+){4}$", screen, re.MULTILINE)
    assert re.search(r"^commit to broker +40( +[\d.]+){3}$", screen, re.MULTILINE)


def test_ctrl_c_removes_its_servers_and_their_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    with Command("demo") as command:
        assert b"starting" in command.line()
        wait_until(lambda: any(folder.iterdir()), timeout=30)
        command.signal(signal.SIGINT)
        done = command.wait()
    assert done.code == 130
    assert done.err == "stopped: its servers and their data are removed\n"
    assert list(folder.iterdir()) == []


def test_kept_it_relays_what_another_program_writes_and_shows_it_until_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    with Command("demo", "--keep") as command:
        shown = ""
        while "Ctrl-C stops all of it" not in shown:
            line = command.line().decode()
            assert line, shown
            shown += line
        console = re.search(r"^console +(.*)$", shown, re.MULTILINE)
        exported = re.search(r"^  export DSQL_OUTBOX_DATABASE=(.*)$", shown, re.MULTILINE)
        assert console is not None
        assert exported is not None
        with httpx.Client(trust_env=False, follow_redirects=True) as browser:
            assert browser.get(console[1]).url.path == "/"
        (url,) = shlex.split(exported[1])
        with Writer(Database(url)) as writer:
            writer.write(Event.new("CarDriven", [Entity("Car", "car-1", {"mileage": 12})]))
        with psycopg.connect(url, autocommit=True) as sql:
            left = "SELECT NOT EXISTS (SELECT FROM outbox.outbox)"
            wait_until(lambda: sql.execute(left).fetchone() == (True,))
        command.signal(signal.SIGINT)
        done = command.wait()
    assert done.code == 0
    assert done.out.decode().endswith("stopped: its servers and their data are removed\n")
    assert list(folder.iterdir()) == []
