"""One run of the publisher as a command: it relays, counts, and says what it left."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeVar

import anyio
import psycopg
from psycopg.rows import AsyncRowFactory, class_row, scalar_row

from dsql_outbox.cli.logs import announce
from dsql_outbox.observability.facts import Fact, RelayProgress
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.operations.health import Health
from dsql_outbox.operations.health_probe import HealthProbe
from dsql_outbox.operations.messages import Messages
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.failure import tables_expected
from dsql_outbox.outbox.redaction import redacted
from dsql_outbox.outbox.settings import DEFAULT_TARGET
from dsql_outbox.outbox.unit_of_work.budget import AT_ONCE
from dsql_outbox.publisher.message_map import MessageMap
from dsql_outbox.publisher.publisher import Publisher
from dsql_outbox.publisher.relay.applier import Apply
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.target_rows import TargetKind, TargetRow, require_target

from .leftover import LIMIT, WaitingTopic, leftover
from .relay_counts import RelayCounts

T = TypeVar("T")

_LOOK: Final = 2.0
"""Seconds that the look at what is left may take after `max_wait`."""


class RelayRun:
    """Relays, and announces its start and end; keeps `health` and `probe` current.

    With `until_empty`, `max_wait` is how many seconds it waits while nothing can be sent;
    None: as long as it takes. `nobody_reads` is set when the reader of the sink
    ``stdout:`` has gone. `is_stalled` is set when the run ended after `max_wait`, and
    messages wait that could be sent later. `leftover` then says what waits, as it does
    after a run `until_empty` that left messages for an operator. `needed_no_broker` is set when
    such a run found nothing to send and did not reach its broker.
    """

    def __init__(
        self,
        database: Database,
        sink: str | None,
        settings: PublisherSettings,
        *,
        until_empty: bool,
        max_wait: float | None = None,
        target: str = DEFAULT_TARGET,
        map: MessageMap | None = None,  # noqa: A002 - as `Publisher` calls it
        apply: Apply | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._database = database
        self._sink = sink
        self._until_empty = until_empty
        self._max_wait = max_wait
        self.counts = RelayCounts()
        self.health = Health()
        self.probe = HealthProbe(database, self.health, hooks, target=target)
        self._target = target
        own: list[Hook] = [self.counts, self.health, _OutputWatch(self._lose_output)]
        self._publisher = Publisher(
            database,
            sink,
            settings,
            map=map,
            apply=apply,
            target=target,
            hooks=[*hooks, *own],
        )
        self.probe.watch(self._publisher.sink)
        self.nobody_reads = False
        self.is_stalled = False
        self.leftover = ""
        self.needed_no_broker = False

    @property
    def given_up(self) -> int:
        """How many messages became dead letters in a run `until_empty`; else 0."""
        return self.counts.dead if self._until_empty else 0

    @property
    def uses_stdout(self) -> bool:
        """Whether messages go to standard output."""
        return self._sink == "stdout:"

    async def run(self) -> None:
        """Relay until `stop`; announce the start and, at the end, the totals.

        Raises `SchemaError` if the tables are missing, `SettingsError` for the target, that or
        `MissingExtra` for the sink, and the driver's error if the database
        cannot be reached.
        """
        # It finds missing tables and a wrong target before the start is announced.
        (shards,) = await self._rows("shard_count", scalar_row)
        kind: TargetKind = "model" if self._sink is None else "sink"
        require_target(await self._rows("target_known", class_row(TargetRow)), self._target, kind)
        to = "a read model" if self._sink is None else redacted(self._sink)
        place = f"from {self._database} to {to}"
        of = "" if self._target == DEFAULT_TARGET else f"target {self._target} "
        announce(f"relaying {of}{place}, {shards} shards")
        try:
            await self._publisher.run(until_empty=self._until_empty, max_wait=self._max_wait)
            if self._until_empty and not self.health.draining:
                await self._look_behind()
        finally:
            announce(str(self.counts))

    def stop(self) -> None:
        """End when the running calls of the sink have ended, or stop waiting for the broker."""
        self.health.draining = True
        self._publisher.stop()

    def _lose_output(self) -> None:
        """End the run when standard output is closed: its reader never returns."""
        if self.uses_stdout:
            self.nobody_reads = True
            self.stop()

    async def _look_behind(self) -> None:
        if self._max_wait is not None:
            self.is_stalled = True
            with anyio.move_on_after(_LOOK):
                async with Messages(self._database) as messages:
                    self.is_stalled = await messages.can_be_sent(self._target)
        self.needed_no_broker = not (self.counts.reached_broker or self.counts.delivered)
        with suppress(psycopg.Error):  # the work is done: a text is no reason to fail
            self.leftover = leftover(
                await self._rows(
                    "waiting_topics", class_row(WaitingTopic), {"target": self._target}, limit=LIMIT
                )
            )

    async def _rows(
        self,
        name: str,
        rows: AsyncRowFactory[T],
        parameters: Mapping[str, object] | None = None,
        **literals: int,
    ) -> Sequence[T]:
        """Run a named statement on its own connection."""
        async with await self._database.connect_async() as connection:
            query = statement(name, self._database.schema, **literals)

            async def ask() -> Sequence[T]:
                cursor = connection.cursor(row_factory=rows)
                return await (await cursor.execute(query, parameters)).fetchall()

            with tables_expected(self._database.schema):
                return await AT_ONCE.run_async(ask)


class _OutputWatch:
    """A hook that calls `lost` while the broker cannot be reached."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def __call__(self, fact: Fact, /) -> None:
        if isinstance(fact, RelayProgress) and not fact.sink_available:
            self._lost()

    def skips_successes(self) -> bool:
        return True
