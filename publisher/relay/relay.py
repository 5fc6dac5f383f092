"""The relay: read, send and settle, side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import anyio
import msgspec
import psycopg

from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay.memory.breaker import Breaker
from dsql_outbox.publisher.relay.memory.topics import NamedTopics
from dsql_outbox.publisher.sinks.port import Sink
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.refused_topics import RefusedTopics

from .applier import Applier, Apply
from .outcomes import Outcomes
from .reader import Reader
from .sender import Sender
from .settler import Settler
from .state import RelayState
from .store import Store

_LAST: Final = 5.0
"""Seconds that the last deletes may take at the end, also when the relay was cancelled."""


class Relayed(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a relay, in numbers of messages.

    `read` rows came into memory. `delivered` messages were acknowledged by the broker,
    `skipped` ones were left out by the map, and `deleted` rows left the outbox for either.
    `failed` counts failed attempts after which
    a message waits, `dead` the messages that were given up.
    """

    read: int = 0
    delivered: int = 0
    deleted: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0

    def __sub__(self, earlier: "Relayed") -> "Relayed":
        """Return the work since `earlier`."""
        now, before = msgspec.structs.asdict(self), msgspec.structs.asdict(earlier)
        return Relayed(**{name: now[name] - before[name] for name in now})


class Relay:
    """Relays the rows of the shards of one publisher until `stop`."""

    def __init__(  # noqa: PLR0913 - its parts
        self,
        store: Store,
        sink: Sink,
        settings: TunedSettings,
        leases: Leases,
        *,
        apply: Apply | None = None,
        mapper: Mapper | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._state = RelayState(loop.time)
        self._state.rows.on_idle = leases.note_idle_shard
        outcomes = Outcomes(self._state, settings, leases)
        self._settler = Settler(self._state, store, settings, outcomes)
        self._sender = Sender(self._state, sink, leases, outcomes, Breaker(), mapper=mapper)
        self._applier: Applier | None = None
        if apply is not None:
            self._state.queues.has_pages = False
            self._applier = Applier(self._state, store, apply, outcomes)
            self._settler.applier, outcomes.apply = self._applier, self._applier.add
        self._reader = Reader(self._state, store, leases, settings)
        self._drain = settings.drain
        self._error: Exception | None = None
        self._scope = anyio.CancelScope()

    async def run(self, *, ends_when_empty: bool = False) -> None:
        """Relay until `stop`, which `ends_when_empty` says comes when the outbox is empty.

        Calls of the sink that run then are waited for. Raises the driver's errors that
        last, and the errors of the sink except `SinkUnavailable`. Acknowledged rows are
        deleted in any case, also when the task is cancelled.
        """
        self._state.ends_when_empty = ends_when_empty
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    if self._applier is not None:
                        self._applier.begin(lambda work: tasks.start_soon(self._guard, work))
                    tasks.start_soon(self._guard, self._reader.run)
                    tasks.start_soon(self._guard, self._settler.run)
                    await self._guard(self._sender.run)
                    self._state.end_sending()
        finally:
            if self._applier is not None:  # and the relay was cancelled
                self._applier.leave()
            with anyio.move_on_after(_LAST, shield=True), suppress(psycopg.Error, OutboxError):
                await self._settler.settle_all()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Read and send no more; `run` returns when the running calls of the sink have ended.

        Messages that wait to be applied are applied for `drain` seconds at most, and the rest is
        left to the next publisher.
        """
        self._state.stop()
        if self._applier is not None:
            self._applier.stop(self._state.clock() + self._drain)

    def wake(self) -> None:
        """Read now: there may be new rows."""
        self._state.to_read.set()

    @property
    def relayed(self) -> Relayed:
        """The counts so far."""
        state = self._state
        return Relayed(
            read=state.read,
            delivered=state.delivered,
            deleted=state.deleted,
            failed=state.failed,
            dead=state.dead,
            skipped=state.skipped,
        )

    @property
    def busy_shards(self) -> set[int]:
        """The shards that have rows on their way, or acknowledged, or failed, and not settled."""
        return self._state.rows.busy_shards | self._state.changes.shards_to_record

    @property
    def stalled_for(self) -> float | None:
        """Seconds for which nothing could be sent; None while something can, or may be found."""
        failing = (
            self._sender.failing_since,
            self._settler.failing_since,
            self._reader.failing_since,
        )
        since = min((each for each in failing if each is not None), default=None)
        if since is None and self._state.is_empty and self._settler.is_done:
            since = self._state.stalled_since
        return None if since is None else self._state.clock() - since

    @property
    def progresses(self) -> bool:
        """Whether every call of the sink keeps its time limit. Statements have deadlines."""
        return self._sender.progresses

    @property
    def is_empty(self) -> bool:
        """Whether memory holds nothing to send or settle, and every row was read."""
        is_idle = self._state.is_empty and self._settler.is_done
        return is_idle and self._state.stalled_since is not None

    @property
    def is_sink_available(self) -> bool:
        """Whether the broker answered when it was asked last."""
        return self._sender.is_available

    @property
    def is_database_available(self) -> bool:
        """Whether the database answered the last read and the last change."""
        return self._reader.failing_since is None and self._settler.failing_since is None

    @property
    def paused_topics(self) -> NamedTopics:
        """The topics that take no messages now."""
        return self._state.topics.names()

    @property
    def refused_topics(self) -> RefusedTopics:
        """Those of them that the broker refused."""
        return self._state.topics.refused_topics(self._state.clock())

    @property
    def held(self) -> int:
        """The number of subjects that wait behind a failed row."""
        return sum(shard.held for shard in self._state.shards.values())

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do one of the activities; its first error ends all of them."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._error = self._error or error
            self._scope.cancel()
