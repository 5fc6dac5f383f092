"""The publisher: rounds, one after the other, until it is told to stop."""

import asyncio
import logging
import random
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

import anyio
import psycopg

from dsql_outbox.observability import Hook, RoundEnded, emit, log_facts, trace_facts
from dsql_outbox.outbox import Database

from ._leases import Leases
from ._round import Relay, Round
from ._settings import PublisherSettings
from ._store import Store
from ._traced import TracedSink
from .sinks import Sink

logger: Final = logging.getLogger("dsql_outbox")


class Publisher:
    """Relays outbox rows to a sink: in order per subject, at least once.

    Any number of publishers, in any processes, share the shards (docs/leases.md).
    Making one does no I/O. `run` relays until `stop`; `run_once` does one round.
    Leave it by `async with` or `close`, which releases its shards. `hooks` are
    told every fact beside the log and OpenTelemetry.
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
        self._leases = Leases(database, self._settings, self._wake_up)
        self._relay: Relay | None = None
        self._stopped = False
        self._wake = asyncio.Event()

    async def run(self, *, until_empty: bool = False) -> Round:
        """Relay until `stop` is called; returns the sums.

        `until_empty` ends it when the whole outbox is empty, other publishers'
        shards too: it waits for those who own them. An unreachable database or
        broker is waited for. Raises `SchemaError` if the tables are missing, and
        the driver's error if the database cannot be reached at the start.
        """
        total = Round()
        idle = self._settings.idle_min
        async with self:
            await self._opened()
            while not self._stopped:
                done = await self._try_round()
                total = _sum(total, done)
                if until_empty and await self._is_empty(done):
                    break
                wait, idle = self._pause(done, idle)
                await self._sleep(wait)
        return total

    async def run_once(self) -> Round:
        """Do one round on the shards that are ours; raises the driver's error if it fails.

        The first call takes what is free, up to this publisher's share.
        """
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
        self._stopped = True
        self._leases.stop()
        self._wake_up()

    async def close(self) -> None:
        """Release the shards and give all connections up."""
        if self._relay is not None:
            self._relay = None
            try:
                await self._leases.close()
            finally:
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
            await self._store.open()
            try:
                await self._leases.open()
            except BaseException:
                await self._store.close()
                raise
            self._relay = Relay(self._store, self._sink, self._settings, self._leases)
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

    async def _is_empty(self, done: Round | None) -> bool:
        """Whether nothing waits in any shard; others are looked at when ours are empty."""
        if done is None or done.read or done.behind:
            return False
        try:
            return await self._store.is_empty()
        except (psycopg.OperationalError, psycopg.InterfaceError):
            return False  # the next round waits for the database, and says so

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
        """Wait, but not longer than until `stop`, or until there are more shards to relay."""
        with anyio.move_on_after(seconds):
            await self._wake.wait()
        self._wake.clear()

    def _wake_up(self) -> None:
        self._wake.set()


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
