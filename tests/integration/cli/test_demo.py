"""The demo as its user sees it."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

COMMAND = [str(Path(sys.executable).parent / "dsql-outbox"), "demo"]


def test_the_demo_holds_its_invariants_and_prints_plain_lines_when_piped() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  ok   ") == 6
    assert "FAIL" not in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert re.search(r"outbox\.write\.attempt 1 conflict 40001", done.stdout)
    assert "waited" in done.stdout
    assert done.stderr == ""


def test_the_demo_shows_bars_on_a_terminal() -> None:
    screen, terminal = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    process = subprocess.Popen(COMMAND, stdout=terminal, stderr=terminal, env=env)
    os.close(terminal)
    shown = bytearray()
    try:
        while chunk := os.read(screen, 4096):
            shown += chunk
    except OSError:
        pass  # the other end is closed: the demo is over
    finally:
        os.close(screen)
    assert process.wait(timeout=90) == 0
    text = shown.decode()
    assert "━" in text
    assert "40/40" in text
    assert "\x1b[" in text


def test_a_sink_that_cannot_be_read_back_is_refused() -> None:
    done = subprocess.run(
        [*COMMAND, "--sink", "stdout:"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "nats://" in done.stderr
