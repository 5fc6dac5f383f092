"""One run of `dev`: everything starts, works until a signal, and ends."""

import shutil
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from dsql_outbox.cli.event_loop import run
from dsql_outbox.cli.logs import LogFormat, logs_on_stderr
from dsql_outbox.cli.relay.daemon import Address, Daemon
from dsql_outbox.cli.relay.relay_run import RelayRun
from dsql_outbox.cli.telemetry.exports import Exports, exporting
from dsql_outbox.cli.telemetry.metering import Metering, measure
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import MissingExtra, OutboxError
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.schema.migrator import apply

from .activity import Activity, Counts
from .dev_lines import DevAddresses, DevLines
from .dev_servers import HOST, dev_servers

_HTTP: Final = 19464
_DRAIN: Final = 0.5  # seconds: messages that are not delivered by then stay in the outbox
_READY: Final = 10.0  # seconds to wait for the publisher before the URLs are shown anyway
_POLL: Final = 0.02  # seconds between two checks of its health
_LOOK: Final = 0.5  # seconds between two checks of the servers
_SERVICE: Final = "dsql-outbox-dev"
_STREAM: Final = "EVENTS"
_PROGRAM: Final = "dsql-outbox"

_Task = Callable[[], Coroutine[Any, Any, None]]


def run_dev(folder: Path | None, lines: DevLines, log_format: LogFormat) -> None:
    """Run until a signal.

    Raises as `dev_servers` does, and `OutboxError` when a server has ended.
    """
    counts = Counts()
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        stack.enter_context(logs_on_stderr(verbose=False, log_format=log_format, announcing=False))
        session = _DevRun(stack, folder, lines)
        run(session.run)
        counts = session.activity.counts
    lines.ended(counts, folder)


class _DevRun:
    """The servers, and what runs on them: publisher, HTTP endpoints, console and the lines."""

    def __init__(self, stack: ExitStack, folder: Path | None, lines: DevLines) -> None:
        """Start the servers; everything ends when `stack` is closed."""
        self._folder = folder
        self._lines = lines
        self._servers = stack.enter_context(dev_servers(folder))
        self._database = Database(self._servers.postgres.url)
        apply(self._database)
        exports = stack.enter_context(exporting())
        record_spans(exports, _SERVICE)
        self._meters = self._measure(exports)
        self._relay = RelayRun(
            self._database,
            f"{self._servers.nats.url}?stream={_STREAM}",
            PublisherSettings(drain=_DRAIN),
            until_empty=False,
            hooks=self._meters.hooks,
        )
        self.activity = Activity(self._database, self._servers.postgres.log, self._relay.counts)
        self._listen = Address(HOST, self._servers.port_for(_HTTP))

    async def run(self) -> None:
        """Run the relay and the parts beside it until a signal.

        Raises `OutboxError` if a server has ended by itself.
        """
        await self.activity.begin()
        console, serve = self._console()
        beside: list[_Task] = [
            partial(self._show, self._places(console)),
            self._watch_servers,
            serve,
        ]
        daemon = Daemon(self._relay, self._meters, listen=self._listen, drain=_DRAIN, beside=beside)
        await daemon.run()
        if lost := self._servers.lost():
            raise OutboxError(f"{lost} has ended, so dev ends")

    def _measure(self, exports: Exports) -> Metering:
        try:
            return measure(exports, _SERVICE, prometheus=True)
        except MissingExtra as error:
            self._lines.note(f"no metrics: {error}")
            return measure(exports, _SERVICE)

    def _console(self) -> tuple[str | None, _Task]:
        """The console's URL, None without its extra, and a function that serves it."""
        try:
            from dsql_outbox.console.access import login_url  # noqa: PLC0415 - an extra
            from dsql_outbox.console.console_server import CONSOLE_PORT, serve_console  # noqa: PLC0415 - an extra
        except ImportError:
            self._lines.note(f"no console: {MissingExtra('console', 'the console')}")
            return None, anyio.sleep_forever
        secret, port = self._servers.secret, self._servers.port_for(CONSOLE_PORT)

        async def serve() -> None:
            try:
                await serve_console(self._database, host=HOST, port=port, token=secret)
            except OutboxError as error:
                self._lines.note(f"the console has ended: {error}")

        return login_url(f"http://{HOST}:{port}/", secret), serve

    async def _watch_servers(self) -> None:
        while self._servers.lost() is None:  # noqa: ASYNC110 - their end is no event
            await anyio.sleep(_LOOK)
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

    def _places(self, console: str | None) -> DevAddresses:
        http = f"http://{HOST}:{self._listen.port}"
        return DevAddresses(
            database=self._servers.postgres.url,
            broker=self._servers.nats.url,
            console=console,
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
