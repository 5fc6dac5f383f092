"""The demo as its user sees it."""

import re

import pytest
from tests.support.commands import invoke, run
from tests.support.pty_terminal import Terminal


def test_the_demo_holds_its_invariants_and_prints_plain_lines_when_piped() -> None:
    done = run("demo")
    shown = done.out.decode()
    assert done.code == 0, shown + done.err
    assert shown.count("  ok   ") == 6
    assert "FAIL" not in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"outbox\.write\.attempt 1 conflict 40001", shown)
    assert "waited" in shown
    assert done.err == ""


@pytest.mark.slow
def test_the_demo_shows_bars_on_a_terminal() -> None:
    with Terminal(80, "demo", env={"TERM": "xterm-256color"}) as terminal:
        assert terminal.finish() == 0
    shown = terminal.output.decode()
    assert "━" in shown
    assert "40/40" in shown
    assert "\x1b[" in shown


def test_a_sink_that_cannot_be_read_back_is_refused_before_a_server_starts() -> None:
    done = invoke("demo", "--sink", "stdout:")
    assert (done.code, done.out) == (2, b"")
    assert "nats://" in done.err
