"""The leases of one publisher, kept by a task that beats in the background."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Final

import anyio
import psycopg

from dsql_outbox.outbox import Database, tables_expected, told
from dsql_outbox.publisher.settings import PublisherSettings

from .ownership import Ownership
from .protocol import beat
from .table import SqlLeaseTable

logger: Final = logging.getLogger("dsql_outbox")

# CLOCK_MONOTONIC of Linux stops while the machine is suspended, but the leases end meanwhile.
# CLOCK_BOOTTIME goes on. macOS lacks it, and its CLOCK_MONOTONIC goes on.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_RETRY: Final = 0.25
"""After a beat that failed, the next one comes after this part of `renew`."""

_MAX_HOST: Final = 64


def boot_time() -> float:
    """Seconds since the machine started, including the time that it was suspended."""
    return time.clock_gettime(_CLOCK)


def new_owner() -> str:
    """A name for one incarnation of a publisher: ``host:pid:random``.

    It is unique, so a publisher never takes the leases of an earlier one for its own.
    """
    return f"{socket.gethostname()[:_MAX_HOST]}:{os.getpid()}:{secrets.token_hex(6)}"


class Leases:
    """The shards that this publisher may relay, and until when.

    `on_change` is called from the event loop with the shards that are owned now and
    those that were owned before.
    """

    def __init__(
        self,
        database: Database,
        settings: PublisherSettings,
        on_change: Callable[[frozenset[int], frozenset[int]], None],
    ) -> None:
        self._own = Ownership(new_owner(), settings)
        self._table = SqlLeaseTable(database, settings)
        self._schema = database.schema
        self._settings = settings
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._poke = asyncio.Event()
        self._closing = False
        self._answered = True
        self._bounds: list[tuple[anyio.CancelScope, Collection[int]]] = []

    @property
    def shards(self) -> frozenset[int]:
        """The shards that this publisher owned when the database answered last."""
        return self._own.shards

    @property
    def are_leaving(self) -> bool:
        """Whether some shards will be released when the round ends."""
        return self._own.is_leaving

    async def open(self) -> None:
        """Do the first beat and start the task.

        Raises `SchemaError` if the tables are missing or outdated, and the driver's
        error if the beat fails.
        """
        try:
            with tables_expected(self._schema):
                again = await beat(self._own, self._table, boot_time)
        except BaseException:
            self._table.drop()
            raise
        self._note(frozenset())
        self._task = asyncio.create_task(self._keep(again), name="dsql-outbox leases")

    def stop(self) -> None:
        """Start no more rounds; the running one may take `drain` seconds more."""
        self._own.stop(boot_time())
        self._rebind()

    async def close(self) -> None:
        """Release all leases, so that other publishers need not wait for their end.

        Takes `renew` seconds at most. Raises the error that ended the task, if any.
        """
        self.stop()
        task, self._task = self._task, None
        if task is None:
            return
        self._closing = True
        self._poke.set()
        try:
            await asyncio.wait({task}, timeout=self._settings.renew)
        finally:
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    @contextmanager
    def round(self) -> Generator[dict[int, int]]:
        """The shards of a round, with the epochs of their leases; the round is the `with` block.

        Raises the error that ended the task that keeps the leases, if any.
        """
        if self._task is not None and self._task.done():
            self._task.result()
        try:
            yield self._own.begin(boot_time())
        finally:
            if self._own.end():
                self._poke.set()

    def sendable(self) -> set[int]:
        """The shards of the running round whose messages may be sent now."""
        return self._own.sendable(boot_time())

    @contextmanager
    def bound(self, shards: Collection[int]) -> Generator[anyio.CancelScope]:
        """A scope that is cancelled when a lease of these shards ends without a renewal."""
        with anyio.CancelScope() as scope:
            self._bounds.append((scope, shards))
            self._rebind()
            try:
                yield scope
            finally:
                self._bounds = [bound for bound in self._bounds if bound[0] is not scope]

    def sink_failed(self) -> None:
        """Note that the broker could not be reached."""
        self._own.sink_failed(boot_time())

    def sink_worked(self) -> None:
        """Note that the broker answered."""
        self._own.sink_worked()

    async def _keep(self, again: float) -> None:
        """Beat until `close`, and once more to release all shards."""
        try:
            while await self._wait(again):
                again = await self._try_beat()
            await self._try_beat()
        finally:
            self._table.drop()

    async def _wait(self, seconds: float) -> bool:
        """Wait until the time is over or `_poke` is set; returns whether to go on."""
        with anyio.move_on_after(seconds):
            await self._poke.wait()
        self._poke.clear()
        return not self._closing

    async def _try_beat(self) -> float:
        before = self._own.shards
        try:
            again = await beat(self._own, self._table, boot_time)
        except psycopg.Error as error:
            if self._answered:
                logger.warning(
                    "Cannot renew the leases, the database does not answer: %s", told(error)
                )
            self._answered = False
            again = _RETRY * self._settings.renew
        else:
            self._answered = True
        self._rebind()
        self._note(before)
        return again

    def _note(self, before: frozenset[int]) -> None:
        """Log and report a change of the owned shards."""
        after = self._own.shards
        if after != before:
            logger.info("Publisher %s owns the shards %s", self._own.owner, sorted(after))
            self._on_change(after, before)

    def _rebind(self) -> None:
        """Move the deadlines of the running calls of the sink to those of the leases."""
        ahead = anyio.current_time() - boot_time() if self._bounds else 0.0
        for scope, shards in self._bounds:
            scope.deadline = ahead + min(map(self._own.deadline, shards))
