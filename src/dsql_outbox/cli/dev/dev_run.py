"""One run of `dev`: everything starts, works until a signal, and ends."""

import shutil
import socket
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, NamedTuple

import anyio

from dsql_outbox.cli.event_loop import run
from dsql_outbox.cli.logs import LogFormat, logs_on_stderr
from dsql_outbox.cli.relay.daemon import Address, Daemon
from dsql_outbox.cli.relay.relay_run import RelayRun
from dsql_outbox.cli.telemetry.exports import Exports, exporting
from dsql_outbox.cli.telemetry.metering import Metering, measure
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox import Database, MissingExtra, OutboxError
from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.schema import apply
from dsql_outbox.servers import EmbeddedPostgres, NatsServer, free_port, kept_secret, preferred_port

from .activity import LOG_SETTINGS, Activity, Counts
from .dev_lines import DevAddresses, DevLines
from .folder_lock import locked

HOST: Final = "127.0.0.1"
POSTGRES: Final = 15432
NATS: Final = 14222
HTTP: Final = 19464
_CLAIM: Final = 19463
_DRAIN: Final = 0.5  # seconds: messages that are not delivered by then stay in the outbox
_READY: Final = 10.0  # seconds to wait for the publisher before the URLs are shown anyway
_POLL: Final = 0.02  # seconds between two checks of its health
_LOOK: Final = 0.5  # seconds between two checks of the servers
_SERVICE: Final = "dsql-outbox-dev"
_STREAM: Final = "EVENTS"
_SECRET: Final = "password"  # noqa: S105 - the name of its file
_PROGRAM: Final = "dsql-outbox"

_SERVER_SETTINGS: Final = {
    **LOG_SETTINGS,
    # Conflicts occur as on Aurora DSQL, whose only isolation level this is.
    "default_transaction_isolation": "repeatable read",
}
_Task = Callable[[], Coroutine[Any, Any, None]]


@contextmanager
def claimed_ports() -> Generator[Callable[[int], int]]:
    """Yield a function that returns the port to use in place of a given one.

    The first `dev` on this machine gets the given ports, if they are free. Any other gets
    free ports.
    """
    with socket.socket() as claim:
        try:
            claim.bind((HOST, _CLAIM))
        except OSError:
            yield lambda _: free_port()
        else:
            yield preferred_port


def run_dev(folder: Path | None, lines: DevLines, log_format: LogFormat) -> None:
    """Run until a signal.

    Raises `SettingsError` for a folder that cannot be used, `MissingExtra` when no
    servers are installed, and `OutboxError` when a server does not start or has ended.
    """
    counts = Counts()
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        stack.enter_context(logs_on_stderr(verbose=False, log_format=log_format, announcing=False))
        session = _DevRun(stack, folder, lines)
        run(session.run)
        counts = session.activity.counts
    lines.ended(counts, folder)


def _started(
    stack: ExitStack, folder: Path | None, port_for: Callable[[int], int]
) -> tuple[EmbeddedPostgres, NatsServer, str]:
    """Start both servers; they stop when `stack` is closed. The third part is their secret."""
    lock = () if folder is None else (stack.enter_context(locked(folder)),)
    # It is kept, so that URLs stay the same.
    secret = token_hex(16) if folder is None else kept_secret(folder / _SECRET)
    postgres = EmbeddedPostgres(
        folder and folder / "postgres",
        settings=_SERVER_SETTINGS | ({"fsync": "off"} if folder is None else {}),
        port=port_for(POSTGRES),
        password=secret,
        pass_fds=lock,
    )
    nats = NatsServer(folder and folder / "nats", port=port_for(NATS), token=secret, pass_fds=lock)
    return stack.enter_context(postgres), stack.enter_context(nats), secret


class _Console(NamedTuple):
    url: str
    serve: _Task


class _DevRun:
    """The parts that run on the servers: publisher, HTTP endpoints, console and the lines."""

    def __init__(self, stack: ExitStack, folder: Path | None, lines: DevLines) -> None:
        """Start the servers; everything ends when `stack` is closed."""
        self._folder = folder
        self._lines = lines
        self._port_for = stack.enter_context(claimed_ports())
        postgres, nats, self._secret = _started(stack, folder, self._port_for)
        self._postgres, self._nats = postgres, nats
        self._lost: str | None = None
        self._database = Database(postgres.url)
        apply(self._database)
        self.activity = Activity(self._database, postgres.log)
        exports = stack.enter_context(exporting())
        record_spans(exports, _SERVICE)
        self._meters = self._measure(exports)
        hooks = [*self._meters.hooks, self.activity]
        self._relay = RelayRun(
            self._database,
            f"{nats.url}?stream={_STREAM}",
            PublisherSettings(drain=_DRAIN),
            until_empty=False,
            hooks=hooks,
        )
        self._listen = Address(HOST, self._port_for(HTTP))

    async def run(self) -> None:
        """Run the relay and the parts beside it until a signal.

        Raises `OutboxError` if a server has ended by itself.
        """
        await self.activity.begin()
        console = self._console()
        places = self._places(console)
        beside: list[_Task] = [partial(self._show, places), self._watch_servers]
        beside += [] if console is None else [partial(self._serve, console)]
        daemon = Daemon(self._relay, self._meters, listen=self._listen, drain=_DRAIN, beside=beside)
        await daemon.run()
        if self._lost is not None:
            raise OutboxError(f"{self._lost} has ended, so dev ends")

    def _measure(self, exports: Exports) -> Metering:
        try:
            return measure(exports, _SERVICE, prometheus=True)
        except MissingExtra as error:
            self._lines.note(f"no metrics: {error}")
            return measure(exports, _SERVICE)

    def _console(self) -> _Console | None:
        try:
            room = import_module("dsql_outbox.console")
        except ImportError:
            self._lines.note(f"no console: {MissingExtra('console', 'the console')}")
            return None
        port = self._port_for(room.CONSOLE_PORT)
        serve = partial(room.serve_console, self._database, host=HOST, port=port)
        url = room.login_url(f"http://{HOST}:{port}/", self._secret)
        return _Console(url, partial(serve, token=self._secret))

    async def _serve(self, console: _Console) -> None:
        try:
            await console.serve()
        except OutboxError as error:
            self._lines.note(f"the console has ended: {error}")

    async def _watch_servers(self) -> None:
        while self._lost is None:
            await anyio.sleep(_LOOK)
            if not self._postgres.is_running():
                self._lost = "PostgreSQL"
            if not self._nats.is_running():
                self._lost = "NATS"
        self._relay.stop()

    async def _show(self, places: DevAddresses) -> None:
        with anyio.move_on_after(_READY):
            while not self._relay.health.ready().ready:  # noqa: ASYNC110 - it has no event
                await anyio.sleep(_POLL)
        try:
            self._lines.ready(places)
            await self.activity.watch(self._lines.change)
        except OSError:  # the reader of the lines has gone
            self._relay.stop()

    def _places(self, console: _Console | None) -> DevAddresses:
        http = f"http://{HOST}:{self._listen.port}"
        return DevAddresses(
            database=self._postgres.url,
            broker=self._nats.url,
            console=console and console.url,
            health=f"{http}/readyz",
            metrics=f"{http}/metrics" if self._meters.exposition else None,
            folder=self._folder,
            programs=_programs(),
        )


def _programs() -> Path:
    """The folder of the program dsql-outbox: of this run, of this Python, or on the PATH."""
    beside = Path(sys.argv[0]).absolute(), Path(sys.executable).with_name(_PROGRAM)
    found = [path for path in beside if path.name == _PROGRAM and path.exists()]
    return found[0].parent if found else Path(shutil.which(_PROGRAM) or sys.executable).parent
