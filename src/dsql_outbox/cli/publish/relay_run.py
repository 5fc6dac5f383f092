"""One run of the publisher as a command: what comes before its first round, and its sums."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from dsql_outbox.cli.logs import announce
from dsql_outbox.cli.missing_tables import schema_error
from dsql_outbox.cli.reads import read_async
from dsql_outbox.observability import Fact, Hook, RoundEnded
from dsql_outbox.outbox import Database, SinkUnavailable, redacted
from dsql_outbox.publisher import Publisher, PublisherSettings, Sink, open_sink
from dsql_outbox.schema import statement

from .availability import Probe
from .health import Health

logger = logging.getLogger("dsql_outbox")


@dataclass
class _Totals:
    """A hook that adds the rounds up."""

    delivered: int = 0
    failed: int = 0
    dead: int = 0

    def __call__(self, fact: Fact, /) -> None:
        if isinstance(fact, RoundEnded):
            self.delivered += fact.delivered
            self.failed += fact.failed
            self.dead += fact.dead

    def __str__(self) -> str:
        return f"relayed {self.delivered:,}, failed {self.failed:,}, dead {self.dead:,}"


class Relaying:
    """Waits for the broker, relays, and says so; `health` and `probe` are kept up to date."""

    def __init__(
        self,
        database: Database,
        sink: str,
        settings: PublisherSettings,
        *,
        until_empty: bool,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._database = database
        self._sink = sink
        self._settings = settings
        self._until_empty = until_empty
        self._totals = _Totals()
        self.health = Health()
        self.probe = Probe(database, self.health, hooks)
        self._hooks = [*hooks, self._totals, self.health, self._watch_output]
        self._stopped = anyio.Event()
        self._publisher: Publisher | None = None
        self.nobody_reads = False

    async def run(self) -> None:
        """Relay until `stop`, and say so.

        Raises `SchemaError`, `SettingsError` or `MissingExtra`, and the
        driver's error if the database cannot be reached.
        """
        shards = await self._shards()
        place = f"from {self._database!r} to {redacted(self._sink)}"
        announce(f"relaying {place}, {shards} shards")
        try:
            while not self._stopped.is_set():
                await self._try_to_relay()
        finally:
            announce(str(self._totals))

    def stop(self) -> None:
        """End after the round in hand, or stop waiting for the broker."""
        self.health.draining = True
        self._stopped.set()
        if self._publisher is not None:
            self._publisher.stop()

    def _watch_output(self, fact: Fact, /) -> None:
        """A hook: a broker comes back, one who read our standard output does not."""
        lost = isinstance(fact, RoundEnded) and not fact.sink_available
        if lost and self._sink == "stdout:":
            self.nobody_reads = True
            self.stop()

    async def _shards(self) -> int:
        """The number of shards; so the tables are looked for before the broker is."""
        async with await self._database.connect_async() as connection:
            with schema_error(self._database.schema):
                query = statement("shard_count", self._database.schema)
                ((shards,),) = await read_async(connection, query)
            return int(shards)

    async def _try_to_relay(self) -> None:
        """Relay to the end, or wait a while if there is no broker yet."""
        self.health.beat()
        try:
            async with open_sink(self._sink) as sink:
                self.probe.watch(sink)
                await self._relay(sink)
            self._stopped.set()
        except SinkUnavailable as error:
            seconds = self._settings.breaker_open
            logger.warning("Relay waits %g s for the broker: %s", seconds, error)
            with anyio.move_on_after(seconds):
                await self._stopped.wait()
        finally:
            self.probe.watch(None)

    async def _relay(self, sink: Sink) -> None:
        self._publisher = Publisher(self._database, sink, self._settings, hooks=self._hooks)
        if self._stopped.is_set():  # while the sink was being opened
            return
        await self._publisher.run(until_empty=self._until_empty)
