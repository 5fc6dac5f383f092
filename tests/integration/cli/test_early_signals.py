"""A signal that arrives while a command still imports its modules."""

import signal
from pathlib import Path

import pytest
from tests.support.commands import Command

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


@pytest.mark.parametrize("module", ["click", "psycopg", "dsql_outbox.outbox"])
@pytest.mark.parametrize(
    ("number", "word", "code"),
    [
        (signal.SIGTERM, "publish", 0),
        (signal.SIGTERM, "console", 0),
        (signal.SIGTERM, "status", 143),
        (signal.SIGHUP, "write", 129),
        (signal.SIGINT, "publish", 0),
        (signal.SIGINT, "status", 130),
    ],
)
def test_a_signal_during_the_imports_ends_a_command_with_its_code_and_one_line(
    tmp_path: Path, module: str, number: signal.Signals, word: str, code: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WAITS)
    env = {"PYTHONPATH": str(tmp_path), "WAITS_AT": module}
    with Command(word, env=env) as command:
        assert command.line() == b"imports\n"
        command.signal(number)
        done = command.wait()
    assert (done.code, done.err) == (code, "stopped before the start\n")
