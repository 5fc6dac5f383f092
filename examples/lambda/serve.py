"""Serve both functions on this machine, for development and for load.py.

    python examples/lambda/serve.py --port 8080

As in Lambda, a process answers one request at a time and keeps a writer of its
own, so requests meet conflicts with each other. Each request becomes an event of
API Gateway, and the function is told how much time it has left. Each stored event
rings the relay, which is invoked as in invocations.py. Without DSQL_OUTBOX_DATABASE
a PostgreSQL from a wheel is started, with DSQL's isolation level, and a NATS, and
both are forgotten at the end. A database of yours is relayed only if
DSQL_OUTBOX_SINK names the broker.
"""

import argparse
import base64
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import connection, get_context
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from typing import Any, NoReturn

from invocations import FUNCTION, Context, InvokeApi, run_environment

RELAY_TIMEOUT = 60.0
"""Seconds that an invocation of the relay may take."""

LOCAL = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "local",
    "AWS_DEFAULT_REGION": "local",
}
"""Signs what nobody checks here. A database in AWS needs credentials that are true."""


Function = Callable[[dict[str, Any], Context], dict[str, Any]]


class Gateway(BaseHTTPRequestHandler):
    """Makes of a request what API Gateway would, and of the answer a response."""

    timeout = 10  # seconds; a client that sends nothing must not hold its process
    limit: float  # seconds that an invocation may take
    function: Function

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = self.function(_event(self, body), Context(self.limit))
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

    def __init__(self, listener: socket, function: Function, limit: float, parent: int) -> None:
        own = {"limit": limit, "function": staticmethod(function)}
        gateway = type("Gateway", (Gateway,), own)
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


def _child(run: Callable[..., None], *args: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run(*args)


def _work(listener: socket, function: Function, limit: float, parent: int) -> None:
    Worker(listener, function, limit, parent).serve_forever()


@contextmanager
def _servers() -> Generator[None]:
    """Start what the environment does not name."""
    with ExitStack() as servers:
        if not os.environ.get("DSQL_OUTBOX_DATABASE"):
            os.environ["DSQL_OUTBOX_DATABASE"] = _database(servers)
            if not os.environ.get("DSQL_OUTBOX_SINK"):
                os.environ["DSQL_OUTBOX_SINK"] = _broker(servers)
        yield


def _database(servers: ExitStack) -> str:
    from dsql_outbox import Database  # noqa: PLC0415 - only without a database
    from dsql_outbox.schema import apply  # noqa: PLC0415
    from dsql_outbox.testing import EmbeddedPostgres  # noqa: PLC0415

    settings = {"default_transaction_isolation": "repeatable read"}
    server = servers.enter_context(EmbeddedPostgres(settings=settings))
    apply(Database(server.url))
    print(f"database {server.url}", flush=True)
    return server.url


def _broker(servers: ExitStack) -> str:
    from dsql_outbox.testing import NatsServer  # noqa: PLC0415 - only without a broker

    url = f"{servers.enter_context(NatsServer()).url}?stream=EVENTS"
    print(f"broker {url}", flush=True)
    return url


def _serve(options: argparse.Namespace) -> None:
    fork = get_context("fork")
    processes: list[Any] = []

    def start(run: Callable[..., None], *args: object) -> None:
        processes.append(fork.Process(target=_child, args=(run, *args)))
        processes[-1].start()

    with socket() as listener:
        listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            if os.environ.get("DSQL_OUTBOX_SINK"):
                events = fork.Queue()
                api = InvokeApi(events)
                start(api.serve_forever)
                for _ in range(options.relays):
                    start(run_environment, events, RELAY_TIMEOUT, options.schedule, os.getpid())
                _ring(api.url)
            import handler  # noqa: PLC0415 - it reads its environment, which is made above

            for _ in range(options.workers):
                start(_work, listener, handler.handler, options.timeout, os.getpid())
            print(
                f"serving on {url}/api/v1/events, {options.workers} requests at a time", flush=True
            )
            connection.wait([process.sentinel for process in processes])
            sys.exit("error: a worker has ended")
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()  # SIGTERM would meet our handler in one that has just begun
                    process.join()


def _ring(url: str) -> None:
    """Let the function that stores ring the relay that runs here."""
    os.environ |= {"DSQL_OUTBOX_RELAY_FUNCTION": FUNCTION, "AWS_ENDPOINT_URL_LAMBDA": url}
    if not os.environ["DSQL_OUTBOX_DATABASE"].startswith("dsql:"):
        os.environ |= LOCAL


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the Lambda functions on this machine.")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (8080)")
    parser.add_argument("--workers", type=int, default=4, help="requests at a time (4)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for a request (10)")
    parser.add_argument("--relays", type=int, default=2, help="invocations of the relay (2)")
    parser.add_argument("--schedule", type=float, default=5.0, help="seconds between them (5)")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with _servers():
            _serve(options)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
