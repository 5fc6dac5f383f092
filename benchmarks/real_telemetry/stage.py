"""The outbox that is watched: a database, NATS, a publisher as a command, and a busy writer."""

import signal
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event as Flag
from threading import Thread
from time import sleep
from typing import Final

import psycopg
from tests.support.commands import Command
from tests.support.telemetry.scrapes import base_url
from tests.support.writer import workload_s

from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.metering import measure
from dsql_outbox.outbox import Database, Entity, Event, OutcomeUnknown
from dsql_outbox.schema import apply
from dsql_outbox.servers.server_process import free_port
from dsql_outbox.testing import EmbeddedPostgres, NatsServer, OutboxProxy
from dsql_outbox.writer import Writer, WriterSettings

WRITES: Final = "business_events"
"""A text that each write of an event contains, for the faults of the proxy."""

_SLOW: Final = 0.7  # seconds that a slow write takes
_PAUSE: Final = 0.05  # seconds between two writes


class Stage:
    """The servers of a run, and the faults that they can have."""

    def __init__(self, database: EmbeddedPostgres, broker: NatsServer, proxy: OutboxProxy) -> None:
        self.database = database
        self.broker = broker
        self.proxy = proxy
        self.listen = f"127.0.0.1:{free_port()}"
        """Where the publisher answers."""
        self._publisher: Command | None = None

    def start_publisher(self) -> None:
        """Start the publisher, and wait until it listens."""
        words = ("--database", self.database.url, "--sink", f"{self.broker.url}?stream=EVENTS")
        self._publisher = Command("publish", *words, "--listen", self.listen, "--lease", 3)
        base_url(self._publisher)

    def stop_publisher(self) -> None:
        """Stop the publisher if it runs, and wait for its end."""
        if self._publisher is not None:
            with self._publisher as running:
                running.signal(signal.SIGTERM)
                running.wait()
            self._publisher = None

    @contextmanager
    def without_publisher(self) -> Generator[None]:
        """No publisher runs."""
        self.stop_publisher()
        yield
        self.start_publisher()

    @contextmanager
    def without_broker(self) -> Generator[None]:
        """The broker is down while nothing is to be sent."""
        self.broker.stop()
        yield
        self.broker.start()

    @contextmanager
    def behind(self) -> Generator[None]:
        """The broker is down, and a message has waited for two minutes by its time in the row."""
        with self.without_broker():
            self.write(Event.new("Moved", [Entity("Car", "car-late")]))
            with psycopg.connect(self.database.url) as connection:
                connection.execute(
                    "UPDATE outbox.outbox SET created_at = created_at - interval '2 min'"
                )
            yield

    @contextmanager
    def conflicts(self) -> Generator[None]:
        """Each write conflicts until its retries run out."""
        self.proxy.refuse(None, matching=WRITES)
        yield
        self.proxy.heal()

    @contextmanager
    def slow_writes(self) -> Generator[None]:
        """Each write takes as long as a database that is overloaded."""
        self.proxy.before(partial(sleep, _SLOW), None, matching=WRITES)
        yield
        self.proxy.heal()

    def write(self, event: Event) -> None:
        """Write one event, past the proxy."""
        with Writer(Database(self.database.url), WriterSettings(any_topic=True)) as writer:
            writer.write(event)

    @contextmanager
    def busy_writer(self) -> Generator[str]:
        """Write through the proxy until the end of the block; yields where it can be scraped."""
        settings = WriterSettings(base=0.02, cap=0.05, max_retries=5)  # or a call lasts 30 s
        with ExitStack() as stack:
            meters = measure(stack.enter_context(exporting()), "writer", prometheus=True)
            writer = stack.enter_context(Writer(self.proxy.database, settings, hooks=meters.hooks))
            assert meters.exposition is not None
            server = stack.enter_context(MetricsServer(meters.exposition))
            stopped = Flag()
            threads = [
                Thread(target=server.serve_forever),
                Thread(target=_write, args=(writer, stopped)),
            ]
            for thread in threads:
                thread.start()
            try:
                yield f"127.0.0.1:{server.server_port}"
            finally:
                stopped.set()
                server.shutdown()
                for thread in threads:
                    thread.join()


def _write(writer: Writer, stopped: Flag) -> None:
    while not stopped.wait(_PAUSE):
        with suppress(psycopg.Error, OutcomeUnknown):  # the storm is intended
            writer.write(workload_s.car_created())


class MetricsServer(ThreadingHTTPServer):
    """Serves what `exposition` returns, on a free port."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Metrics)
        self.exposition = exposition


class _Metrics(BaseHTTPRequestHandler):
    server: MetricsServer

    def do_GET(self) -> None:
        text = self.server.exposition()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def staged() -> Generator[Stage]:
    """Start the servers, with outbox tables and a publisher that is not started yet."""
    with EmbeddedPostgres() as database, NatsServer() as broker, OutboxProxy(database.url) as proxy:
        apply(Database(database.url), shards=2)
        stage = Stage(database, broker, proxy)
        try:
            yield stage
        finally:
            stage.stop_publisher()
