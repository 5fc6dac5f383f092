"""Serve the function on this machine, for development and for load.py.

    python examples/lambda/serve.py --port 8080

As in Lambda, a process answers one request at a time and keeps a writer of its
own, so requests meet conflicts with each other. Each request becomes an event of
API Gateway, and the function is told how much time it has left. Without
DSQL_OUTBOX_DATABASE a PostgreSQL from a wheel is started, with DSQL's isolation
level, and forgotten at the end.
"""

import argparse
import base64
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import connection, get_context
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from time import monotonic
from typing import Any, NoReturn

import handler


class Context:
    """What Lambda tells of an invocation."""

    def __init__(self, seconds: float) -> None:
        self._ends = monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - monotonic()) * 1000))


class Gateway(BaseHTTPRequestHandler):
    """Makes of a request what API Gateway would, and of the answer a response."""

    timeout = 10  # seconds; a client that sends nothing must not hold its process
    limit: float  # seconds that an invocation may take

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = handler.handler(_event(self, body), Context(self.limit))
        content = answer["body"].encode()
        self.send_response(answer["statusCode"])
        for name, value in answer["headers"].items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing of each request: a load has many."""


class Worker(HTTPServer):
    """One of the processes that share the listening socket; it ends with its parent."""

    def __init__(self, listener: socket, limit: float, parent: int) -> None:
        gateway = type("Gateway", (Gateway,), {"limit": limit})
        super().__init__(listener.getsockname(), gateway, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        listener.settimeout(0.5)  # another process may have been faster
        self._parent = parent

    def service_actions(self) -> None:
        if os.getppid() != self._parent:
            raise SystemExit(1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that hung up is no news
            super().handle_error(request, client_address)


def _event(request: BaseHTTPRequestHandler, body: bytes) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    try:
        text, encoded = body.decode(), False
    except UnicodeDecodeError:
        text, encoded = base64.b64encode(body).decode(), True
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "requestContext": {
            "stage": "$default",
            "http": {"method": request.command, "path": path, "protocol": "HTTP/1.1"},
        },
        "body": text,
        "isBase64Encoded": encoded,
    }


def _work(listener: socket, limit: float, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Worker(listener, limit, parent).serve_forever()


@contextmanager
def _database() -> Generator[None]:
    if os.environ.get("DSQL_OUTBOX_DATABASE"):
        yield
        return
    from dsql_outbox import Database  # noqa: PLC0415 - only without a database
    from dsql_outbox.schema import apply  # noqa: PLC0415
    from dsql_outbox.testing import EmbeddedPostgres  # noqa: PLC0415

    with EmbeddedPostgres(settings={"default_transaction_isolation": "repeatable read"}) as server:
        apply(Database(server.url))
        os.environ["DSQL_OUTBOX_DATABASE"] = server.url
        print(f"database {server.url}", flush=True)
        yield


def _serve(port: int, workers: int, limit: float) -> None:
    with socket() as listener:
        listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        fork = get_context("fork")
        work = (listener, limit, os.getpid())
        processes = [fork.Process(target=_work, args=work) for _ in range(workers)]
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            for process in processes:
                process.start()
            print(f"serving on {url}/api/v1/events, {workers} requests at a time", flush=True)
            connection.wait([process.sentinel for process in processes])
            sys.exit("error: a worker has ended")
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()  # SIGTERM would meet our handler in one that has just begun
                    process.join()


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the Lambda function on this machine.")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (8080)")
    parser.add_argument("--workers", type=int, default=4, help="requests at a time (4)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for a request (10)")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with _database():
            _serve(options.port, options.workers, options.timeout)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
