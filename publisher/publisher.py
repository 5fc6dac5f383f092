"""The publisher: it relays outbox rows until it is stopped."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, cast

import anyio
import psycopg

from dsql_outbox.observability.facts import Fact, RelayProgress, ShardsChanged, WriteEnded
from dsql_outbox.observability.hooks import Hook, emit
from dsql_outbox.observability.log_hook import LogFacts
from dsql_outbox.observability.otel.metrics import target_metrics
from dsql_outbox.observability.otel.spans import trace_facts
from dsql_outbox.outbox.arguments import given_hooks, given_settings, require_seconds
from dsql_outbox.outbox.database.database import Database, require_database, used_by
from dsql_outbox.outbox.database.fork import OneProcess
from dsql_outbox.outbox.errors import OutboxError, SettingsError
from dsql_outbox.outbox.failure import LASTING, kind_of
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.outbox.settings import DEFAULT_TARGET, NO_DOORBELL
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.leases.table import SqlLeaseTable
from dsql_outbox.publisher.message_map import Mapper, MessageMap, open_map_in_thread, require_map
from dsql_outbox.publisher.relay.applier import Apply, Nowhere
from dsql_outbox.publisher.relay.memory.breaker import Breaker
from dsql_outbox.publisher.relay.receipt_watch import ReceiptWatch
from dsql_outbox.publisher.relay.relay import Relay, Relayed
from dsql_outbox.publisher.relay.sifter import Sifter
from dsql_outbox.publisher.relay.sql_store import SqlStore
from dsql_outbox.publisher.relay.traced_sink import TracedSink
from dsql_outbox.publisher.sinks.kept_sink import KeptSink, SinkSource, sink_factory
from dsql_outbox.publisher.sinks.port import Sink
from dsql_outbox.schema.refused_topics import RefusedTopics
from dsql_outbox.schema.target_rows import metric_name

from .doorbell import DoorbellListener
from .settings import PublisherSettings
from .supervision import in_background
from .tuned_settings import TunedSettings

logger: Final = logging.getLogger("dsql_outbox")

_SWEEP: Final = 60.0
"""Seconds between two searches for failures whose message no longer exists."""

_REPORT: Final = 0.1
"""Seconds between two `RelayProgress` facts while there is something to report."""

_SIGN_OF_LIFE: Final = 5.0
"""Seconds between two `RelayProgress` facts while nothing happens."""

_FIRST_LOOK: Final = 0.01
"""Seconds until the first look whether all is relayed. Looks that ask the database follow after
waits that double up to `idle_max`."""

UntilEmpty = bool | Literal["own"]
"""When `Publisher.run` ends: not by itself, with an empty outbox, or when its shards are empty."""


class _State(NamedTuple):
    """The state of the parts that readiness depends on."""

    sink_available: bool
    database_available: bool
    leases_kept: bool
    unowned: int


class Publisher:
    """Relays outbox rows to a sink: in order per subject, at least once.

    `sink` is a URL as for `open_sink`, a function without arguments that returns a sink or an
    asynchronous context manager that opens one, or an open sink. A sink of a URL or a function
    is opened by the publisher, and opened again after it failed. While the broker is out of
    reach the publisher waits. It takes no shards before its sink was open once. An open sink
    must connect again by itself, and an error of it other than `SinkUnavailable` ends the
    publisher, unless it is about one message.

    Any number of publishers, in any number of processes, share the shards
    (docs/relay.md). The constructor does no I/O. `run` relays until `stop`;
    ``async with`` relays in the background until the end of the block. Each of the
    `hooks` receives every fact that the log and OpenTelemetry receive.

    `apply` is an async function ``apply(connection, message)``. It runs in the transaction
    that deletes the row of a message, in order per subject. Its changes on `connection` commit
    exactly once. An error that it raises fails the message, which is tried again later. It must
    not commit. A publisher sends or applies: a read model beside a broker is a target of its own.

    `map` is a function that makes the wire form of each message, what the broker gets in place of
    the event (`MessageMap`, docs/your-own-format.md). If it has a method ``open``, `run` calls that
    in a thread before it takes shards, and raises its error. An error of the map fails the message,
    and the topic is paused instead while the map has not worked for any of its messages.

    `target` is the one whose messages are relayed (docs/targets.md). A publisher with a sink takes
    a target of the kind ``sink``, such as the default one. One that applies takes one of the kind
    ``model``, which `Targets.add` adds.

    With ``PublisherSettings(doorbell=True)`` it hears the doorbell of writers in other processes,
    but not through a pooler that lends a session for a transaction.

    A publisher runs once, in the process that created it. `run` raises `OutboxError`
    when it is called again or in a forked child; create another publisher there.

    Raises `TypeError` if an argument has the wrong type, `SettingsError` for a sink and `apply`
    together, `map` and `apply` together, or `apply` on the default target, and
    `SettingsError` or `MissingExtra` for a URL, as `open_sink` does.

        >>> import asyncio
        >>> async def relay() -> None:
        ...     await Publisher(database, "stdout:").run(until_empty=True)
        >>> asyncio.run(relay())
    """

    def __init__(  # noqa: PLR0913 - what a user names
        self,
        database: Database,
        sink: SinkSource | None = None,
        settings: PublisherSettings | None = None,
        *,
        map: MessageMap | None = None,  # noqa: A002 - what it is; nothing here maps a list
        apply: Apply | None = None,
        target: str = DEFAULT_TARGET,
        hooks: Iterable[Hook] = (),
    ) -> None:
        _require_types(database, sink, apply, target)
        database = used_by("publisher", database)
        if map is not None:
            require_map("Publisher", map)
            if apply is not None:
                raise SettingsError(
                    "Publisher takes a map with a sink: a function to apply gets each message as "
                    "it is stored"
                )
        given_sink = Nowhere() if sink is None else sink
        factory = sink_factory("Publisher", given_sink)
        own = given_settings("Publisher", settings, PublisherSettings)
        self._settings = TunedSettings.of(own).for_database(database)
        if self._settings.doorbell and database.is_dsql:
            raise SettingsError(NO_DOORBELL.format("PublisherSettings"))
        self._database = database
        given = given_hooks("Publisher", hooks)
        self._hooks: tuple[Hook, ...] = (
            LogFacts(),
            trace_facts,
            target_metrics(metric_name(target)),
            *given,
        )
        self._receipts = ReceiptWatch()
        traced = partial(
            TracedSink,
            hooks=self._hooks,
            settings=self._settings,
            sifter=Sifter(),
            receipts=self._receipts,
        )
        self._kept = None if factory is None else KeptSink(factory, traced)
        self._sink = self._kept or traced(cast("Sink", given_sink))
        self._apply = apply
        self._map = map
        self._store = SqlStore(database, target, "model" if sink is None else "sink")
        self._leases = Leases(
            database,
            self._settings,
            self._tell_shards,
            busy=self._busy_shards,
            progresses=self._progresses,
            table=SqlLeaseTable(database, self._settings, self._refused_topics, target),
            has_sink=self._kept is None,
        )
        self._relay: Relay | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = OneProcess("a publisher")
        self._has_run = False
        self._is_stopped = False
        self._opening: anyio.CancelScope | None = None
        self._told = Relayed()
        self._told_statements = 0
        self._told_state: _State | None = None
        self._background: AbstractAsyncContextManager[None] | None = None

    @property
    def sink(self) -> Sink:
        """The sink as this publisher uses it, for `HealthProbe.watch`."""
        return self._sink

    async def run(
        self,
        *,
        until_empty: UntilEmpty = False,
        max_wait: float | None = None,
        max_seconds: float | None = None,
    ) -> Relayed:
        """Relay until `stop` is called. Returns what was relayed.

        With `until_empty`, return when no message waits in any shard, including the shards of
        other publishers. With ``until_empty="own"``, return when none waits in the shards
        that this publisher owns, or immediately if it owns none. Messages that wait for an
        operator do not count. `max_wait` limits the seconds that it then waits while nothing
        can be sent, because messages failed, or the broker or the database cannot be reached.
        None: no limit.

        It stops `max_seconds` after its start, counted from before it connects, as after
        `stop`. None: no limit.

        Raises `SchemaError` if the tables or the shards are missing, `MissingRight` if the role
        lacks a right of a publisher, `SettingsError` if there is no such target, or it is of
        another kind, the driver's error if the database cannot be reached at the start, and the
        errors of opening the sink except `SinkUnavailable`.
        """
        if until_empty not in (True, False, "own"):
            raise ValueError(f'until_empty must be True, False or "own", got {until_empty!r}')
        require_seconds("max_wait", max_wait)
        require_seconds("max_seconds", max_seconds)
        with self._stop_after(max_seconds):
            return await self._run(_ignore_start, until_empty=until_empty, max_wait=max_wait)

    async def __aenter__(self) -> Self:
        """Run in the background until the block ends, then stop as after `stop`.

        Raises the errors of `run`. An error of the publisher cancels the block and is raised
        in its place.
        """
        self._background = in_background(
            partial(self._run, until_empty=False, max_wait=None), self.stop
        )
        await self._background.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._background is not None:
            await self._background.__aexit__(kind, error, trace)

    def doorbell(self, fact: Fact, /) -> None:
        """A hook for a writer in the same process: a commit wakes the publisher immediately.

        Use it as ``AsyncWriter(database, hooks=[publisher.doorbell])``. It may be
        called from any thread.
        """
        committed = isinstance(fact, WriteEnded) and fact.status == "committed"
        loop = self._loop
        if committed and loop is not None and self._process.is_here:
            with suppress(RuntimeError):  # the loop is closed: there is nothing to wake
                loop.call_soon_threadsafe(self._wake)

    def stop(self) -> None:
        """Let `run` return when the running calls of the sink and of `apply` have ended.

        They may take `drain` seconds more. May be called more than once.
        """
        self._is_stopped = True
        if self._kept is not None:
            self._kept.give_up()
        if self._relay is not None:
            self._leases.stop()
            self._relay.stop()
        elif self._opening is not None:
            self._opening.cancel()

    async def _run(
        self, started: Callable[[], None], *, until_empty: UntilEmpty, max_wait: float | None
    ) -> Relayed:
        self._process.require()
        if self._has_run:
            raise OutboxError("a publisher runs once: create another one to relay again")
        self._has_run = True
        try:
            with anyio.CancelScope() as self._opening:  # a cluster may take long to wake up
                await self._open_map()
                await self._store.open()
            if self._opening.cancelled_caught:
                started()
                return Relayed()
            self._loop = asyncio.get_running_loop()
            mapper = None
            if self._map is not None:
                mapper = Mapper(self._map, self._hooks, self._settings, self._sink)
            self._relay = relay = Relay(
                self._store,
                self._sink,
                self._settings,
                self._leases,
                apply=self._apply,
                mapper=mapper,
            )
            async with nullcontext() if self._kept is None else self._kept.kept():
                try:
                    if self._kept is not None and self._kept.has_opened:
                        self._leases.take_part()
                    await self._leases.open()
                    started()
                    await self._relay_until_stopped(
                        relay, until_empty=until_empty, max_wait=max_wait
                    )
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._leases.close()
        finally:
            self._loop = None
            with anyio.CancelScope(shield=True):
                await self._store.close()
        return relay.relayed

    async def _open_map(self) -> None:
        """Let a map that has a method `open` prepare itself, for example by asking a registry."""
        if hasattr(self._map, "open"):
            await open_map_in_thread(self._map)

    async def _relay_until_stopped(
        self, relay: Relay, *, until_empty: UntilEmpty, max_wait: float | None
    ) -> None:
        if self._is_stopped:
            return
        error: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._take_part)
                tasks.start_soon(self._report, relay)
                tasks.start_soon(self._sweep)
                tasks.start_soon(self._receipts.run)
                if self._settings.doorbell:
                    listener = DoorbellListener(self._database, self._wake, self._store.ring)
                    tasks.start_soon(listener.run)
                if until_empty:
                    only_own = until_empty == "own"
                    tasks.start_soon(self._stop_when_empty, relay, max_wait, only_own)
                try:
                    await relay.run(ends_when_empty=bool(until_empty))
                except Exception as failure:  # noqa: BLE001 - raised below, without a group
                    error = failure
                tasks.cancel_scope.cancel()
        finally:
            self._tell(relay)
        if error is not None:
            raise error

    async def _take_part(self) -> None:
        """Open the sink, if that has failed so far, and then take shards.

        Others reach their brokers meanwhile, so this publisher must not take shards from them: its
        URL may name a broker that does not exist.
        """
        if self._kept is None or self._kept.has_opened:
            return
        breaker = Breaker()

        def next_wait() -> float:
            breaker.note_failure(now := anyio.current_time())
            return breaker.seconds_left(now)

        await self._kept.wait_until_open(next_wait)
        if self._kept.has_opened:
            self._leases.take_part()

    def _wake(self) -> None:
        if self._relay is not None:
            self._relay.wake()

    def _busy_shards(self) -> set[int]:
        return set() if self._relay is None else self._relay.busy_shards

    def _refused_topics(self) -> RefusedTopics:
        return RefusedTopics([], 0) if self._relay is None else self._relay.refused_topics

    def _progresses(self) -> bool:
        return self._relay is None or self._relay.progresses

    @contextmanager
    def _stop_after(self, seconds: float | None) -> Generator[None]:
        """Call `stop` after some seconds, unless the block ends first."""
        if seconds is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(seconds, self.stop)
        try:
            yield
        finally:
            timer.cancel()

    async def _stop_when_empty(self, relay: Relay, max_wait: float | None, only_own: bool) -> None:
        """Stop when no message waits, or none could be sent for `max_wait` seconds."""
        limit = float("inf") if max_wait is None else max_wait
        wait = first = min(_FIRST_LOOK, self._settings.longest_idle)
        while True:
            await anyio.sleep(wait)
            stalled_for = relay.stalled_for
            left = limit - (stalled_for or 0.0)
            if stalled_for is not None and left <= 0:
                break
            if not relay.is_empty:
                wait = first
                continue
            with anyio.move_on_after(left):
                # It has no shards of its own yet while it waits for its broker.
                knows_own = only_own and self._leases.takes_part
                if await self._is_done(self._leases.shards if knows_own else None):
                    break
            wait = min(self._settings.longest_idle, 2 * wait)
        self.stop()

    async def _is_done(self, shards: frozenset[int] | None) -> bool:
        try:
            return await self._store.is_done(shards)
        except psycopg.Error as error:
            if kind_of(error) in LASTING:
                raise
            return False  # the next read meets the same error, logs it and waits

    async def _sweep(self) -> None:
        """Every `_SWEEP` seconds, delete failures whose message no longer exists.

        Of the publishers of a target, the owner of its first shard does so.
        """
        while True:
            await anyio.sleep(_SWEEP)
            if self._store.first_shard in self._leases.shards:
                try:
                    await self._store.sweep()
                except (psycopg.Error, OutboxError) as error:
                    logger.warning("Relay cannot delete old failures: %s", error_line(error))

    def _tell_shards(self, owned: frozenset[int], before: frozenset[int]) -> None:
        emit(self._hooks, ShardsChanged(owned, owned - before, before - owned))
        self._wake()

    async def _report(self, relay: Relay) -> None:
        """Report the relay's work to the hooks: a sign of life while idle, nothing while stuck."""
        told_at = float("-inf")
        while True:
            await anyio.sleep(_REPORT)
            is_due = anyio.current_time() - told_at >= _SIGN_OF_LIFE
            if self._has_news(relay) or (is_due and relay.progresses):
                self._tell(relay)
                told_at = anyio.current_time()

    def _has_news(self, relay: Relay) -> bool:
        has_changed = self._told_state is not None and self._state(relay) != self._told_state
        return relay.relayed != self._told or has_changed

    def _state(self, relay: Relay) -> _State:
        leases = self._leases
        return _State(
            sink_available=leases.has_sink and relay.is_sink_available,
            database_available=relay.is_database_available,
            leases_kept=leases.are_kept,
            unowned=leases.unowned,
        )

    def _tell(self, relay: Relay) -> None:
        now, statements = relay.relayed, self._store.statements
        done, paused = now - self._told, relay.paused_topics
        self._told_state = state = self._state(relay)
        emit(
            self._hooks,
            RelayProgress(
                read=done.read,
                delivered=done.delivered,
                deleted=done.deleted,
                failed=done.failed,
                dead=done.dead,
                skipped=done.skipped,
                statements=statements - self._told_statements,
                held=relay.held,
                paused=paused.names,
                paused_more=paused.more,
                **state._asdict(),
            ),
        )
        self._told, self._told_statements = now, statements


def _ignore_start() -> None:
    """Ignore that the publisher has started."""


_MODEL: Final = (
    'add one by `dsql-outbox targets add NAME --kind model`, or `await targets.add("NAME", '
    'kind="model")` of Targets(database), and apply in Publisher(database, apply=.., target="NAME")'
)


def _require_types(database: object, sink: object, apply: object, target: str) -> None:
    """Raise `TypeError`, with the expression to write, for an argument of a wrong type.

    Raises `SettingsError` for a sink and a function, and for a function on the default target.
    """
    require_database("Publisher", database)
    if apply is not None and not inspect.iscoroutinefunction(apply):
        raise TypeError("apply must be an async function: async def apply(connection, message)")
    if sink is None and apply is None:
        raise TypeError("Publisher takes a sink, or a function to apply")
    if sink is not None and apply is not None:
        raise SettingsError(
            "Publisher takes a sink or a function to apply, not both: a read model beside a broker "
            f"is a target of its own, {_MODEL}"
        )
    if sink is None and target == DEFAULT_TARGET:
        raise SettingsError(
            "Publisher applies the messages of a target of the kind model, and target default is "
            f"a sink: {_MODEL}"
        )
