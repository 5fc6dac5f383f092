"""The shop whose outbox has an incident: database, broker, publishers and a busy writer."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from http import HTTPStatus
from logging import FileHandler, getLogger
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from types import TracebackType
from typing import Final, LiteralString, Self

import psycopg
from tests.support.telemetry.scrapes import get
from tests.support.waiting import wait_until

from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.metering import measure
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox import Database, Entity, Event, OutboxError
from dsql_outbox.schema import apply
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.postgres_server import EmbeddedPostgres
from dsql_outbox.servers.server_process import free_port
from dsql_outbox.writer import Writer, WriterSettings

from .metrics_server import MetricsServer

_PASSWORD: Final = "rehearsal"
_ORDERS: Final = 20  # subjects of the busy writer
_EVERY: Final = 0.25  # seconds between two of its events
_ROOT: Final = Path(__file__).parents[2]
_PROGRAM: Final = str(Path(sys.executable).with_name("dsql-outbox"))


class Shop:
    """The servers, with a role per duty, as a context manager.

    `folder` takes the logs. The database keeps its data in `data`, if it is given. Bytes to and
    from the broker take `delay` seconds each way.
    """

    def __init__(self, folder: Path, *, data: Path | None = None, delay: float = 0.0) -> None:
        self.postgres = EmbeddedPostgres(data, settings={"fsync": "off"})
        self.nats = NatsServer()
        self.written: list[Event] = []
        """The events that are stored, of those that tell of something."""
        self.listen = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        """Where the first publishers answer."""
        self.logs: list[Path] = []
        self.writer_log = folder / "writer.log"
        self._folder = folder
        self._delay = delay
        self._broker = ""
        self._publishers: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()
        self._stopped = Flag()

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._stack.enter_context(self.postgres)
        self._stack.enter_context(self.nats)
        for role in ("shop_writer", "shop_publisher", "shop_operator"):
            self.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{_PASSWORD}'")
        apply(self.owner)
        both = {"operator": "shop_operator", "reader": "shop_operator"}
        grant(self.owner, Roles(writer="shop_writer", publisher="shop_publisher", **both))
        head, _, port = self.nats.url.rpartition(":")
        self._broker = f"{head}:{_delayed(int(port), self._delay) if self._delay else port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self.end_publishers(signal.SIGKILL)
        self._stack.close()

    @property
    def owner(self) -> Database:
        """The database, as the owner of the tables."""
        return Database(self.postgres.url)

    def environment(self, role: str) -> dict[str, str]:
        """The environment of a command for a role."""
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return os.environ | {
            "DSQL_OUTBOX_DATABASE": self._url(role),
            "PYTHONPATH": path,
            "COLUMNS": "80",
        }

    def execute(self, *statements: LiteralString) -> None:
        """Run statements as the owner, each in its transaction."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            for each in statements:
                connection.execute(each)

    def operate(self, *words: str) -> None:
        """Run a command as the operator. Raises `CalledProcessError` if it fails."""
        subprocess.run(
            [_PROGRAM, *words],
            env=self.environment("shop_operator"),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def shows(self, *words: str) -> str:
        """What a command of the operator prints, and its exit code if not 0."""
        return command(*words, env=self.environment("shop_operator"))

    def publish(self, *words: str, sink: str | None = "?stream=EVENTS") -> None:
        """Start a publisher; `sink` is what follows the address of the broker."""
        number = len(self.logs)
        listen = self.listen[min(number, len(self.listen) - 1)]
        given = [] if sink is None else ["--sink", f"{self._broker}{sink}"]
        self.logs.append(self._folder / f"publisher-{number + 1}.log")
        with self.logs[-1].open("wb") as log:
            process = subprocess.Popen(
                [_PROGRAM, "publish", *given, "--listen", listen, *words],
                env=self.environment("shop_publisher"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._publishers.append(process)
        wait_until(lambda: self._is_ready(listen), timeout=60)

    def end_publishers(self, number: signal.Signals) -> None:
        """End all publishers by a signal."""
        for each in self._publishers:
            each.send_signal(number)
            each.wait()
        self._publishers.clear()

    def restart_publisher(self) -> None:
        """Restart the publisher, as a deployment does; it may fail at the start."""
        self.end_publishers(signal.SIGTERM)
        with self.logs[-1].open("ab") as log:
            words = [_PROGRAM, "publish", "--sink", f"{self._broker}?stream=EVENTS"]
            env = self.environment("shop_publisher")
            self._publishers.append(subprocess.Popen(words, env=env, stdout=log, stderr=log))

    def write(self, *events: Event) -> None:
        """Store events, a hundred per transaction."""
        with self._writer() as writer:
            for start in range(0, len(events), 100):
                writer.write_many(events[start : start + 100])
        self.written += events

    def start_writing(self) -> str:
        """Write orders and invoices until the end. Returns where to scrape the writer."""
        log = getLogger("dsql_outbox")  # on the terminal it would tell the cause
        log.addHandler(self._stack.enter_context(closing(FileHandler(self.writer_log, delay=True))))
        log.propagate = False
        meters = measure(self._stack.enter_context(exporting()), "shop", prometheus=True)
        assert meters.exposition is not None
        server = self._stack.enter_context(MetricsServer(meters.exposition))
        writer = self._stack.enter_context(self._writer(meters.hooks))
        threads = [Thread(target=server.serve_forever), Thread(target=self._write, args=(writer,))]
        for each in threads:
            each.start()
        for end in (threads[0].join, server.shutdown, threads[1].join, self._stopped.set):
            self._stack.callback(end)
        return f"127.0.0.1:{server.server_port}"

    def _write(self, writer: Writer) -> None:
        number = 0
        while not self._stopped.wait(_EVERY):
            number += 1
            event = _event(number)
            try:
                writer.write(event)
            except (psycopg.Error, OutboxError) as error:
                with self.writer_log.open("a") as log:
                    print(f"{type(error).__name__}: {error}", file=log)
            else:
                self.written.append(event)

    def _writer(self, hooks: Sequence[Hook] = ()) -> Writer:
        settings = WriterSettings(timeout=5)
        return Writer(Database(self._url("shop_writer")), settings, hooks=hooks)

    def _url(self, role: str) -> str:
        return f"postgresql://{role}:{_PASSWORD}@{self.postgres.url.partition('@')[2]}"

    def _is_ready(self, listen: str) -> bool:
        try:
            return get(f"http://{listen}/readyz")[0] == HTTPStatus.OK
        except OSError:
            return False


def command(*words: str, env: Mapping[str, str]) -> str:
    """What a command prints on both outputs, and its exit code if it is not 0."""
    done = subprocess.run(
        [_PROGRAM, *words],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode() + (f"(exit code {done.returncode})\n" if done.returncode else "")


def _event(number: int) -> Event:
    """A step of an order; each fifth event is an invoice."""
    if number % 5 == 0:
        return Event.new("InvoiceSent", [Entity("Invoice", f"INV-{number // 5}")])
    kind = ("OrderPlaced", "OrderPaid", "OrderShipped")[number // _ORDERS % 3]
    return Event.new(kind, [Entity("Order", f"ORD-{number % _ORDERS}", {"step": number})])


def _delayed(port: int, seconds: float) -> int:
    """A port that passes bytes to and from another one, each way after some seconds."""
    own = free_port()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            loop.call_later(seconds, writer.write, data)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, beyond[1]), pump(beyond[0], writer))

    async def serve() -> None:
        server = await asyncio.start_server(take, "127.0.0.1", own)
        await server.serve_forever()

    Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    return own
