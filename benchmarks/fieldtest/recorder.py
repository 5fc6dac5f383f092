"""The broker of the field test: it records each message, and does what the harm says.

A request has one or more messages of a topic. It is answered with the outcome of each, after
the messages are recorded: that is the confirm.
"""

import json
import threading
from collections.abc import Callable
from socketserver import StreamRequestHandler, ThreadingTCPServer
from time import monotonic, sleep
from typing import Any, Self, TextIO

from .adapters.broker import STORED

MESSAGE_SECONDS = 0.001
"""The time that the broker takes for a message."""


class Recorder:
    """The broker on a free port, as a context manager.

    `outcome` says what becomes of a message: it gets its topic and its number. `after` gets the
    process that sent a message that was stored, before it has the confirm. Both are called by one
    thread at a time. `log` gets a line for each message and each thing that was done.
    """

    def __init__(
        self,
        outcome: Callable[[str, int], str],
        after: Callable[[int], None],
        log: TextIO,
    ) -> None:
        self.stored: list[int] = []
        self.last = self._began = monotonic()
        self._outcome = outcome
        self._after = after
        self._log = log
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._answer)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """Its port."""
        port: int = self._server.server_address[1]
        return port

    def note(self, text: str) -> None:
        """Add a line to the log."""
        self._log.write(f"{monotonic() - self._began:.3f} {text}\n")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: dict[str, Any]) -> list[str]:
        outcomes = []
        for number in request["numbers"]:
            sleep(MESSAGE_SECONDS)
            with self._lock:
                outcomes.append(self._record(request["pid"], request["topic"], number))
        return outcomes

    def _record(self, pid: int, topic: str, number: int) -> str:
        outcome = self._outcome(topic, number)
        self.note(f"{pid} {number} {outcome}")
        if outcome == STORED:
            self.stored.append(number)
            self.last = monotonic()
            self._after(pid)
        return outcome


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], answer: Callable[[dict[str, Any]], list[str]]
    ) -> None:
        self.answer = answer
        super().__init__(address, _Handler)


class _Handler(StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        try:
            for line in self.rfile:
                self.wfile.write(json.dumps(server.answer(json.loads(line))).encode() + b"\n")
        except OSError:
            pass  # the sender was killed
