"""The leases of one publisher, kept by a task that beats in the background."""

import asyncio
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import anyio
import psycopg

from dsql_outbox.observability.shown_text import counted, duration
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.failure import LASTING, kind_of, tables_expected, text_of
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.missing_rights import rights_expected

from .ownership import Ownership
from .protocol import Beats, LeaseTable, TakenOver
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

    `on_change` is called from the event loop with the shards that are owned now and those
    that were owned before. `busy` answers which shards have a message on its way, from the
    moment when `may_send` allowed it, or a row whose outcome is not settled.
    `progresses` answers whether the relay works, which an idle relay does. Without progress
    the leases are not renewed. `clock` must not stop while the machine is suspended. A
    simulation passes its own clock, `table` and `owner`. With `has_sink` False no shard is
    taken before `take_part`.

    Leases are opened once: a publisher that starts again needs new ones, with a new name.
    """

    def __init__(  # noqa: PLR0913 - the relay's answers, and parts for a simulation
        self,
        database: Database,
        settings: TunedSettings,
        on_change: Callable[[frozenset[int], frozenset[int]], None],
        *,
        busy: Callable[[], Collection[int]],
        progresses: Callable[[], bool],
        clock: Callable[[], float] = boot_time,
        table: LeaseTable | None = None,
        owner: str | None = None,
        has_sink: bool = True,
    ) -> None:
        self._own = Ownership(owner or new_owner(), settings, has_sink=has_sink)
        self._table = table or SqlLeaseTable(database, settings)
        self._beats = Beats(
            self._own,
            self._table,
            clock,
            busy=self._busy_now,
            progresses=progresses,
            # The next statement of the beat may take `renew` seconds. A call must not be cut
            # meanwhile by the end of a lease that was renewed.
            renewed=self._rebind_all,
            taken_over=_tell_taken_over,
        )
        self._database = database
        self._settings = settings
        self._on_change = on_change
        self._busy = busy
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._poke = asyncio.Event()
        self._opened = False
        self._closing = False
        self._answered = True
        self._answered_at = -math.inf
        self.takes_part = False
        """Whether this publisher has looked for shards since it has a sink."""
        self._bounds: dict[anyio.CancelScope, Callable[[], Mapping[int, int]]] = {}

    @property
    def shards(self) -> frozenset[int]:
        """The shards that this publisher owned when the database answered last."""
        return self._own.shards

    @property
    def has_sink(self) -> bool:
        """Whether the sink was open at any time."""
        return self._own.has_sink

    @property
    def are_kept(self) -> bool:
        """Whether a beat was answered within the last lease, so others see this publisher alive."""
        return self._clock() - self._answered_at < self._settings.lease

    @property
    def unowned(self) -> int:
        """How many shards of its share this publisher may not send now."""
        return self._own.unowned(self._clock())

    async def open(self) -> None:
        """Do the first beat and start the task.

        Raises `SchemaError` if the tables are missing or outdated, `MissingRight` if the role lacks
        one of a publisher, the driver's error if the
        beat fails, the errors of `on_change`, and `OutboxError` the second time. After an
        error no shard is owned.
        """
        if self._opened:
            raise OutboxError(
                "this publisher has ended, and cannot start again: create another Publisher"
            )
        self._opened = True
        try:
            again = await self._beat()
            self._note(frozenset())
        except BaseException:
            await self._undo_open()
            raise
        self._task = asyncio.create_task(self._keep(again), name="dsql-outbox leases")

    def stop(self) -> None:
        """Stop sending. Messages in flight may take `drain` seconds more."""
        self._own.stop(self._clock())
        self._rebind_all()
        self._poke.set()

    async def close(self) -> None:
        """Release all leases, so that other publishers need not wait for their end.

        The relay must have ended. Takes `renew` seconds at most, also when the caller
        is cancelled. Raises the error that ended the task, if any.
        """
        task, self._task = self._task, None
        if task is None:
            return
        self._closing = True
        self.stop()
        try:
            with anyio.move_on_after(self._settings.renew, shield=True):
                await asyncio.wait({task})  # a statement that is on its way is answered first
                with suppress(psycopg.Error, OutboxError):
                    await self._try_beat()
        finally:
            task.cancel()
            self._table.drop()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    def usable(self) -> dict[int, int]:
        """The shards that may be read and sent now, with the epochs of their leases.

        Raises the error that ended the task that keeps the leases, if any.
        """
        if self._task is not None and self._task.done():
            self._task.result()
        return self._own.usable(self._clock())

    def may_send(self, shard: int, epoch: int) -> bool:
        """Whether a message may be sent now that was read under this epoch of its shard."""
        return self._own.may_send(shard, epoch, self._clock())

    def has_lease(self, shard: int, epoch: int) -> bool:
        """Whether the lease lasts that was taken under this epoch of its shard."""
        return self._own.has_lease(shard, epoch, self._clock())

    @contextmanager
    def lease_scope(self, epochs: Callable[[], Mapping[int, int]]) -> Generator[anyio.CancelScope]:
        """A scope that is cancelled when one of these leases ends without a renewal, or is lost.

        `epochs` maps shards to the epochs under which the messages of the scope were read. It is
        called again each time that leases change: a shard that is left out binds the scope no
        longer. After `stop` the scope ends with the `drain` at the latest.
        """
        with anyio.CancelScope() as scope:
            self._bounds[scope] = epochs
            self._rebind(scope)
            try:
                yield scope
            finally:
                del self._bounds[scope]

    def note_idle_shard(self) -> None:
        """Record that a shard is idle. If it drains, it is released immediately."""
        leaving = self._own.leaving
        if leaving and leaving.difference(self._busy()):  # what is busy costs more to find
            self._poke.set()

    def note_sink_failure(self) -> None:
        """Record that the broker could not be reached."""
        self._own.note_sink_failure(self._clock())

    def note_sink_answer(self) -> None:
        """Record that the broker answered."""
        self._own.note_sink_answer()

    def take_part(self) -> None:
        """Record that the sink is open, and take part immediately."""
        self._own.note_sink_answer()
        if self._task is not None:  # else the first beat is still to come
            self._poke.set()

    async def _undo_open(self) -> None:
        """Give back the shards of the first beat, since nothing will relay them."""
        self._closing = True
        self._own.stop(self._clock())
        ignored = suppress(psycopg.Error, OutboxError)
        with anyio.move_on_after(self._settings.renew, shield=True), ignored:
            if self._own.shards:
                await self._beat()
        self._table.drop()

    async def _keep(self, again: float) -> None:
        """Beat until `close`."""
        while await self._wait(again):
            again = await self._try_beat()

    async def _wait(self, seconds: float) -> bool:
        """Wait until the time is over or `_poke` is set. Returns whether to continue."""
        with anyio.move_on_after(seconds):
            await self._poke.wait()
        self._poke.clear()
        return not self._closing

    async def _beat(self) -> float:
        had_sink = self._own.has_sink
        with tables_expected(self._database.schema), rights_expected(self._database, "publisher"):
            again = await self._beats.beat()
        self._answered_at = self._clock()
        self.takes_part |= had_sink
        return again

    async def _try_beat(self) -> float:
        """Beat once. Raises a lasting error, which ends the task, and so the relay."""
        before = self._own.shards
        try:
            again = await self._beat()
        except psycopg.Error as error:
            if kind_of(error) in LASTING:
                raise
            if self._answered:
                logger.warning("Cannot renew the leases: %s", text_of(error))
            self._answered = False
            again = _RETRY * self._settings.renew
        else:
            self._answered = True
        self._rebind_all()
        self._note(before)
        return again

    def _busy_now(self) -> Collection[int]:
        """The busy shards; none after the end of the relay, however it ended."""
        return () if self._closing else self._busy()

    def _note(self, before: frozenset[int]) -> None:
        """Log and report a change of the owned shards."""
        after = self._own.shards
        if after != before:
            logger.info("Publisher %s owns the shards %s", self._own.owner, sorted(after))
            self._on_change(after, before)

    def _rebind_all(self) -> None:
        for scope in self._bounds:
            self._rebind(scope)

    def _rebind(self, scope: anyio.CancelScope) -> None:
        """Move the deadline of a scope to the first end of its leases."""
        ahead = anyio.current_time() - self._clock()  # a scope has the event loop's clock
        ends = [self._own.deadline(*lease) for lease in self._bounds[scope]().items()]
        scope.deadline = ahead + min(ends, default=self._own.stop_by)


def _tell_taken_over(found: TakenOver) -> None:
    """Log why shards were taken: a publisher that ends in order gives its leases back."""
    seen = "is not announced" if found.seen is None else f"was seen {duration(found.seen)} ago"
    logger.warning(
        "Took over %s from publisher %s, which did not renew its leases and %s: "
        "it was killed, is stuck or cannot reach the database",
        counted(found.shards, "shard"),
        found.owner,
        seen,
    )
