"""An execution environment of Lambda that relays: a process that runs the handler per line.

Run it by ``python -m tests.support.relay_environment DATABASE SINK MARGIN LEASE``. Each line of
standard input is the number of seconds that an invocation has; its answer is a line.
"""

import json
import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any, Self

from tests.support.commands import Command
from tests.support.lambda_functions import Context

from dsql_outbox import Database, PublisherSettings
from dsql_outbox.aws_lambda import relay_handler

LEASE = 2.0  # the first beat of an invocation has 0.6 s, with its connection
GRACE = 0.2 * LEASE


class Environment:
    """One environment, from its start to the end of the block."""

    def __init__(self, database: str, sink: str, margin: float = 1.0, lease: float = LEASE) -> None:
        program = ("-m", "tests.support.relay_environment")
        self._command = Command(database, sink, margin, lease, program=program)
        self._is_ready = False

    def begin(self, seconds: float = 60.0) -> None:
        """Begin an invocation that ends after so many seconds, when its imports are done."""
        if not self._is_ready:
            assert self._command.line() == b"ready\n"
            self._is_ready = True
        self._command.feed(f"{seconds}\n".encode())

    def answer(self) -> dict[str, Any]:
        """Wait for the answer of the invocation that runs; `threads` is added."""
        found: dict[str, Any] = json.loads(self._command.line())
        return found

    def invoke(self) -> dict[str, Any]:
        """Invoke it, and wait for the answer."""
        self.begin()
        return self.answer()

    def signal(self, number: signal.Signals) -> None:
        """Kill it, freeze it or thaw it."""
        self._command.signal(number)

    def wait(self) -> None:
        """Wait for its end."""
        self._command.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._command.__exit__(kind, error, trace)


def _main() -> None:
    database, sink, margin, lease = sys.argv[1:]
    settings = PublisherSettings(lease=float(lease))
    handler = relay_handler(Database(database), sink, settings, margin=float(margin))
    _say("ready")
    for line in sys.stdin:
        answer = handler({}, Context(float(line)))
        _say(json.dumps(answer | {"threads": threading.active_count()}))
    os._exit(0)  # frozen for ever


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
