"""The publisher: rounds, one after the other, until it is told to stop."""

import logging
import random
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

import anyio
import psycopg

from dsql_outbox.observability import Hook, RoundEnded, emit, log_facts, trace_facts
from dsql_outbox.outbox import Database

from ._round import Relay, Round
from ._settings import PublisherSettings
from ._store import Store
from ._traced import TracedSink
from .sinks import Sink

logger: Final = logging.getLogger("dsql_outbox")


class Publisher:
    """Relays outbox rows to a sink: in order per subject, at least once.

    Making one does no I/O. `run` relays until `stop`; `run_once` does one round.
    Leave it by `async with` or `close`. `hooks` are told every fact beside the
    log and OpenTelemetry.
    """

    def __init__(
        self,
        database: Database,
        sink: Sink,
        settings: PublisherSettings | None = None,
        *,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self._settings = settings or PublisherSettings()
        self._hooks: tuple[Hook, ...] = (log_facts, trace_facts, *hooks)
        self._sink = TracedSink(sink, self._hooks)
        self._store = Store(database)
        self._relay: Relay | None = None
        self._stop = anyio.Event()

    async def run(self, *, until_empty: bool = False) -> Round:
        """Relay until `stop` is called, or until nothing is left; returns the sums.

        An unreachable database or broker is waited for. Raises `SchemaError` if
        the tables are missing, and the driver's error if the database cannot be
        reached at the start.
        """
        total = Round()
        idle = self._settings.idle_min
        async with self:
            await self._opened()
            while not self._stop.is_set():
                done = await self._try_round()
                total = _sum(total, done)
                if until_empty and done is not None and _is_empty(done):
                    break
                wait, idle = self._pause(done, idle)
                await self._sleep(wait)
        return total

    async def run_once(self) -> Round:
        """Do one round; raises the driver's error if the database fails."""
        relay = await self._opened()
        done = await relay.round()
        emit(
            self._hooks,
            RoundEnded(
                read=done.read,
                delivered=done.delivered,
                failed=done.failed,
                dead=done.dead,
                held=done.held,
                sink_available=done.unavailable is None,
            ),
        )
        return done

    def stop(self) -> None:
        """Let `run` end after the round in hand; may be called more than once."""
        self._stop.set()

    async def close(self) -> None:
        """Give all connections up."""
        if self._relay is not None:
            self._relay = None
            await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _opened(self) -> Relay:
        if self._relay is None:
            shards = await self._store.open()
            holds = await self._store.holds()
            self._relay = Relay(self._store, self._sink, self._settings, shards, holds)
        return self._relay

    async def _try_round(self) -> Round | None:
        """A round, or None if the database could not be reached."""
        try:
            done = await self.run_once()
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            logger.warning("Relay waits for the database: %s", error)
            return None
        if done.unavailable is not None:
            logger.warning(
                "Relay waits %g s for the broker: %s",
                self._settings.broker_wait,
                done.unavailable,
            )
        return done

    def _pause(self, done: Round | None, idle: float) -> tuple[float, float]:
        """Seconds to wait after a round, and after the next one that finds nothing to do."""
        settings = self._settings
        if done is None:
            return settings.idle_max, settings.idle_min
        if done.unavailable is not None:
            return settings.broker_wait, settings.idle_min
        if done.delivered or done.dead or done.behind:
            return 0.0, settings.idle_min
        jittered = idle * random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, guards nothing
        return jittered, min(settings.idle_max, idle * 2)

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._stop.wait()


def _is_empty(done: Round) -> bool:
    return done.read == 0 and not done.behind


def _sum(total: Round, done: Round | None) -> Round:
    if done is None:
        return total
    return Round(
        read=total.read + done.read,
        delivered=total.delivered + done.delivered,
        failed=total.failed + done.failed,
        dead=total.dead + done.dead,
        held=done.held,
    )
