"""The relay with the parts that a supervisor needs: signals, health, metrics."""

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Final, NamedTuple

import click
import msgspec

from dsql_outbox.cli.exit_codes import FAILED, OVERDUE
from dsql_outbox.cli.logs import announce
from dsql_outbox.cli.output import counted
from dsql_outbox.cli.signals import GO_ON, Interruption
from dsql_outbox.cli.telemetry.metering import Metering
from dsql_outbox.http_server.fixed_paths import Answer, Route, Routes, fixed_paths, index
from dsql_outbox.http_server.hosts import is_loopback
from dsql_outbox.http_server.server import serving
from dsql_outbox.observability.otel.metrics import metric_facts

from .relay_run import RelayRun

_LAST_PORT: Final = 65535
_AT_ONCE: Final = 128 + signal.SIGINT
_AS_BEFORE: Final = f"waiting messages stay in the outbox; {GO_ON}"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Address(NamedTuple):
    """The host and port to listen on."""

    host: str
    port: int


def address(text: str) -> Address:
    """Parse ``HOST:PORT``; an IPv6 address needs brackets.

    Raises `click.BadParameter` for any other text.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise click.BadParameter(f"{text!r} is not HOST:PORT, as 127.0.0.1:9464 or [::1]:9464")
    return Address(host, int(port))


class Daemon:
    """One run of the relay. `drain` is how many seconds it may take to end after a signal."""

    def __init__(
        self,
        relaying: RelayRun,
        metering: Metering,
        *,
        listen: Address | None,
        drain: float,
    ) -> None:
        self._relaying = relaying
        self._metering = metering
        self._listen = listen
        self._drain = drain
        self._interruption = Interruption(relaying.stop, limit=drain)

    async def run(self) -> int:
        """Relay until a signal or the end of the work, and return the exit code.

        Raises the errors of `RelayRun.run`, and `SettingsError` if it cannot listen on
        `listen`.
        """
        is_measured = self._metering.hooks or not metric_facts.skips_successes()
        probes = [self._relaying.probe.run] if self._listen or is_measured else []
        await self._interruption.run(self._relay, *probes)
        if self._interruption.at_once:
            announce(_AS_BEFORE)
            return _AT_ONCE
        if self._interruption.overdue:
            announce(f"not done after {self._drain:g} s: {_AS_BEFORE}")
            return OVERDUE
        if self._interruption.first is not None:
            announce(_AS_BEFORE)
            return FAILED if self._relaying.nobody_reads else 0
        self._tell_end()
        if self._relaying.given_up:
            return FAILED
        if self._relaying.is_stalled:
            return OVERDUE
        return FAILED if self._relaying.nobody_reads else 0

    def _tell_end(self) -> None:
        if self._relaying.given_up:
            given_up = counted(self._relaying.given_up, "message")
            announce(f"gave up on {given_up}: see dsql-outbox messages list --state dead")
        if self._relaying.is_stalled:
            announce("nothing can be sent now, and --max-wait is over")
        if self._relaying.leftover:
            announce(self._relaying.leftover)
        elif self._relaying.needed_no_broker:
            announce("the outbox is empty, so nothing needed the broker, which was not reached")

    async def _relay(self) -> None:
        async with self._served():
            await self._relaying.run()

    @asynccontextmanager
    async def _served(self) -> AsyncGenerator[None]:
        if self._listen is None:
            yield
            return
        paths = fixed_paths(self._routes(), is_local=is_loopback(self._listen.host))
        async with serving(*self._listen, paths) as url:
            announce(f"listening on {url}: /healthz /readyz /metrics")
            yield

    def _routes(self) -> Routes:
        routes: dict[str, Route] = {"/healthz": self._healthz, "/readyz": self._readyz}
        exposition = self._metering.exposition
        if exposition is not None:
            routes["/metrics"] = lambda: Answer(HTTPStatus.OK, exposition(), _PROMETHEUS)
        return {"/": partial(index, "dsql-outbox publish", tuple(routes)), **routes}

    def _healthz(self) -> Answer:
        found = self._relaying.health.alive()
        return _answer(found, good=found.alive)

    def _readyz(self) -> Answer:
        found = self._relaying.health.ready()
        return _answer(found, good=found.ready)


def _answer(found: msgspec.Struct, *, good: bool) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, msgspec.json.encode(found) + b"\n")
