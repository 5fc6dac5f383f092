"""A signal that arrives while a command still imports its modules."""

import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

WAITS = """
import os, signal, sys

class Waits:
    def find_spec(self, name, *_):
        if name == os.environ["WAITS_AT"] and not hasattr(self, "met"):
            self.met = True
            os.write(1, b"imports\\n")
            signal.pause()

sys.meta_path.insert(0, Waits())
"""


@pytest.mark.parametrize(
    ("module", "number", "word", "code"),
    [
        ("click", signal.SIGTERM, "publish", 0),
        ("psycopg", signal.SIGTERM, "console", 0),
        ("dsql_outbox.outbox", signal.SIGTERM, "status", 143),
        ("click", signal.SIGHUP, "write", 129),
        ("psycopg", signal.SIGINT, "publish", 0),
        ("dsql_outbox.outbox", signal.SIGINT, "status", 130),
    ],
)
def test_a_signal_during_the_imports_ends_a_command_with_its_code_and_one_line(
    tmp_path: Path, module: str, number: signal.Signals, word: str, code: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    with Popen(
        [sys.executable, "-m", "dsql_outbox", word],
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "WAITS_AT": module},
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"imports\n"
        command.send_signal(number)
        _, err = command.communicate()
    assert (command.returncode, err) == (code, b"stopped before the start\n")
