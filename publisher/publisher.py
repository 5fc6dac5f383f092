"""The publisher: it runs relay rounds until it is stopped, and waits between them."""

import asyncio
import logging
import random
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Final, Self

import anyio
import psycopg

from dsql_outbox.observability import (
    Fact,
    Hook,
    RoundEnded,
    ShardsChanged,
    WriteEnded,
    emit,
    log_facts,
    metric_facts,
    trace_facts,
)
from dsql_outbox.outbox import PASSING, Database, OneProcess, kind_of, told
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.relay.breaker import Breaker
from dsql_outbox.publisher.relay.round import Relay, Round
from dsql_outbox.publisher.relay.store import Store
from dsql_outbox.publisher.relay.traced_sink import TracedSink

from .settings import PublisherSettings
from .sinks import Sink

logger: Final = logging.getLogger("dsql_outbox")

_SWEEP: Final = 60.0
"""Seconds between two searches for failures whose message no longer exists."""

_SIGN_OF_LIFE: Final = 5.0
"""Seconds between two `RoundEnded` facts while the breaker is open.

No round runs then, and without these facts a monitor could not tell that the
publisher is alive.
"""

_SWEEPER: Final = 0
"""Only the owner of this shard deletes such failures, so that one publisher does it."""


class Publisher:
    """Relays outbox rows to a sink: in order per subject, at least once.

    Any number of publishers, in any number of processes, share the shards
    (docs/leases.md). The constructor does no I/O. `run` relays until `stop`;
    `run_once` does one round. Use ``async with`` or call `close`, which releases the
    shards. Each of the `hooks` receives every fact that the log and OpenTelemetry
    receive.

    A publisher belongs to the process that created it. In a forked child `run` and
    `run_once` raise `OutboxError`; the child must create its own.
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
        self._hooks: tuple[Hook, ...] = (log_facts, trace_facts, metric_facts, *hooks)
        self._sink = TracedSink(sink, self._hooks)
        self._store = Store(database)
        self._leases = Leases(database, self._settings, self._shards_changed)
        self._breaker = Breaker(
            failures=self._settings.breaker_failures, open_for=self._settings.breaker_open
        )
        self._relay: Relay | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = OneProcess("a publisher")
        self._stopped = False
        self._wake = asyncio.Event()
        self._idle = self._settings.idle_min
        self._swept_at = monotonic()

    async def run(self, *, until_empty: bool = False) -> Round:
        """Relay until `stop` is called; returns the sums over all rounds.

        With `until_empty`, return when no message waits in any shard, including the
        shards of other publishers. Messages that wait for an operator do not count.
        When the database or the broker cannot be reached, `run` waits for it.

        Raises `SchemaError` if the tables or the shards are missing, and the driver's
        error if the database cannot be reached at the start.
        """
        total = Round()
        async with self:
            relay = await self._opened()
            while not self._stopped:
                done = await self._try_round(relay)
                total = _sum(total, done)
                if until_empty and await self._is_done(done):
                    break
                await self._sleep(self._pause(done))
            with suppress(psycopg.Error):  # rows that are not deleted here are sent again later
                await relay.settle()
        return total

    async def run_once(self) -> Round:
        """Do one round on the shards of this publisher.

        The first call takes free shards, up to this publisher's share. Raises the
        driver's error if the database fails, and `SchemaError` as `run` does.
        """
        done = await (await self._opened()).round()
        self._tell(done)
        return done

    def doorbell(self, fact: Fact, /) -> None:
        """A hook for a writer in the same process: a commit wakes the publisher at once.

        Use it as ``AsyncWriter(database, hooks=[publisher.doorbell])``. It may be
        called from any thread.
        """
        committed = isinstance(fact, WriteEnded) and fact.status == "committed"
        if committed and self._loop is not None and self._process.is_here:
            with suppress(RuntimeError):  # the loop is closed: there is nothing to wake
                self._loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Let `run` return after the running round, which may take `drain` seconds more.

        May be called more than once.
        """
        self._stopped = True
        self._leases.stop()
        self._wake.set()

    async def close(self) -> None:
        """Release the shards and close all connections; does nothing in a forked child."""
        if self._relay is not None and self._process.is_here:
            self._relay = self._loop = None
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
        self._process.require()
        if self._relay is None:
            await self._store.open()
            try:
                await self._leases.open()
            except BaseException:
                await self._store.close()
                raise
            self._loop = asyncio.get_running_loop()
            self._relay = Relay(self._store, self._sink, self._settings, self._leases)
        return self._relay

    async def _try_round(self, relay: Relay) -> Round | None:
        """Do a round; returns None if the database could not be reached.

        While the breaker is open, no round runs and the result is empty.
        """
        state = self._breaker.state(monotonic())
        if state == "open":
            self._tell(Round(), sink_available=False)
            return Round()
        try:
            done = await relay.round(overlap=True, probe=state == "half_open")
            await self._sweep()
        except psycopg.Error as error:
            if kind_of(error) not in PASSING:
                raise
            logger.warning("Relay waits for the database: %s", told(error))
            return None
        self._judge(done)
        self._tell(done)
        return done

    def _judge(self, done: Round) -> None:
        """Report the result for the broker to the breaker."""
        now = monotonic()
        if done.unavailable is not None:
            self._breaker.failed(now)
            wait = self._breaker.wait(now)
            logger.warning("Relay waits %g s for the broker: %s", wait, done.unavailable)
        elif done.delivered or done.failed or done.dead:
            self._breaker.succeeded()

    async def _sweep(self) -> None:
        """Every `_SWEEP` seconds, delete failures whose message no longer exists."""
        if monotonic() - self._swept_at >= _SWEEP and _SWEEPER in self._leases.shards:
            await self._store.sweep()
            self._swept_at = monotonic()

    async def _is_done(self, done: Round | None) -> bool:
        """Whether no message waits in any shard.

        All shards are asked for only when the round found no more work in its own.
        """
        if done is None or done.delivered or done.unsent or done.behind:
            return False
        try:
            return await self._store.is_done()
        except psycopg.Error as error:
            if kind_of(error) not in PASSING:
                raise
            return False  # the next round meets the same error, logs it and waits

    def _pause(self, done: Round | None) -> float:
        """Seconds to wait after a round; they double with each round that had nothing to do."""
        settings = self._settings
        if done is None:
            return settings.idle_max
        if wait := self._breaker.wait(monotonic()):
            return min(wait, _SIGN_OF_LIFE)
        if done.delivered or done.failed or done.dead:
            self._idle = settings.idle_min
            return 0.0
        if done.sweeping or (done.behind and not done.unsent):
            is_stuck = done.held == done.read > 0  # a new message rings, or waits for idle_min
            return settings.idle_min if is_stuck else 0.0
        idle, self._idle = self._idle, min(settings.idle_max, self._idle * 2)
        jittered = idle * random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, guards nothing
        return min(jittered, max(settings.idle_min, done.retry_in))

    async def _sleep(self, seconds: float) -> None:
        """Wait; `stop`, the doorbell and a gain of shards end the wait."""
        if seconds:
            with anyio.move_on_after(seconds):
                await self._wake.wait()
                self._idle = self._settings.idle_min
        self._wake.clear()

    def _shards_changed(self, owned: frozenset[int], before: frozenset[int]) -> None:
        emit(self._hooks, ShardsChanged(owned, owned - before, before - owned))
        if owned - before:
            self._wake.set()

    def _tell(self, done: Round, *, sink_available: bool = True) -> None:
        emit(
            self._hooks,
            RoundEnded(
                read=done.read,
                delivered=done.delivered,
                failed=done.failed,
                dead=done.dead,
                held=done.held,
                sink_available=sink_available and done.unavailable is None,
                deleted=done.deleted,
                statements=done.statements,
            ),
        )


def _sum(total: Round, done: Round | None) -> Round:
    if done is None:
        return total
    return Round(
        read=total.read + done.read,
        delivered=total.delivered + done.delivered,
        deleted=total.deleted + done.deleted,
        failed=total.failed + done.failed,
        dead=total.dead + done.dead,
        statements=total.statements + done.statements,
        held=done.held,
    )
