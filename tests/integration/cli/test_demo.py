"""The demo as its user sees it."""

import re
import signal
from pathlib import Path

import pytest
from tests.support.commands import Command, run
from tests.support.pty_terminal import Terminal
from tests.support.waiting import wait_until


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
