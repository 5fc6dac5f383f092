"""Lambda's part of the relay, on this machine: it queues invocations and runs them.

A doorbell invokes the function by Lambda's own API, asynchronously: the answer is
202, and the event waits in a queue. Each environment is a process that takes one
event at a time. One that waited in vain for as long as the schedule's interval runs
the function as the schedule would.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

FUNCTION = "relay"
SCHEDULED = {"source": "aws.scheduler"}


class Context:
    """Lambda's words about an invocation."""

    def __init__(self, seconds: float) -> None:
        self._ends = monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - monotonic()) * 1000))


class InvokeApi(HTTPServer):
    """Lambda's API for invocations, as far as a doorbell uses it; it ends with its parent."""

    def __init__(self, events: "Queue[Any]") -> None:
        super().__init__(("127.0.0.1", 0), _Invoke)
        self.events = events
        self._parent = os.getpid()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def service_actions(self) -> None:
        if os.getppid() != self._parent:
            raise SystemExit(1)


class _Invoke(BaseHTTPRequestHandler):
    timeout = 10  # seconds; as in serve.py

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        is_ours = self.path.endswith(f"/functions/{FUNCTION}/invocations")
        if is_ours and isinstance(self.server, InvokeApi):
            self.server.events.put(json.loads(body or b"{}"))
        self.send_response(202 if is_ours else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def run_environment(events: "Queue[Any]", limit: float, every: float, parent: int) -> None:
    """Run the relay's function until the parent has ended, one invocation after the other."""
    import relay  # noqa: PLC0415 - it reads its environment, which serve.py makes

    while os.getppid() == parent:
        try:
            event = events.get(timeout=every)
        except Empty:
            event = SCHEDULED
        answer = relay.handler(event, Context(limit))
        if answer["delivered"] or answer["left"]:
            print(f"relay {json.dumps(answer)}", flush=True)
