"""A publisher that lives as long as an application, whatever its database does meanwhile."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from dsql_outbox.observability.facts import Fact
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.operations.health import Health, Ready
from dsql_outbox.operations.health_probe import HealthProbe
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.failure import PASSING, kind_of, shown_error
from dsql_outbox.outbox.redaction import without_text
from dsql_outbox.publisher.message_map import MessageMap
from dsql_outbox.publisher.publisher import Publisher
from dsql_outbox.publisher.relay.applier import Apply
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.kept_sink import SinkSource

logger: Final = logging.getLogger("dsql_outbox")

_WAIT: Final = 5.0
"""Seconds between a failure and the next publisher."""


class BackgroundPublisher:
    """Relays until the end of `running`. After an error of the database another publisher starts.

    A publisher waits by itself while the broker is away, or a database that it has reached. It ends
    when it cannot reach the database at its start, and after an error that waiting does not cure,
    such as a right that was revoked. The command leaves both to its supervisor, by its exit code.
    A web application has none: it is healthy but for its publisher.

    A failure is logged, and `ready` reports it until the next publisher has started. Only the
    first publisher may raise an error, one that waiting does not cure.
    """

    def __init__(  # noqa: PLR0913 - what its publishers take
        self,
        database: Database,
        sink: SinkSource | None,
        settings: PublisherSettings,
        *,
        map: MessageMap | None,  # noqa: A002 - as `Publisher` calls it
        apply: Apply | None,
        target: str,
        hooks: Sequence[Hook],
    ) -> None:
        self._database = database
        self._sink = sink
        self._settings = settings
        self._map = map
        self._apply = apply
        self._target = target
        self._health = Health()
        self._hooks = [*hooks, self._health]
        self._probe = HealthProbe(database, self._health, hooks)
        self._publisher: Publisher | None = None
        self._failure: str | None = None
        self._begun = asyncio.Event()
        self._stopped = asyncio.Event()

    def doorbell(self, fact: Fact, /) -> None:
        """A hook for the writer of the same application: a commit wakes the publisher."""
        if self._publisher is not None:
            self._publisher.doorbell(fact)

    def ready(self) -> Ready:
        """Whether waiting messages are being relayed, and why not."""
        found = self._health.ready()
        if self._failure is None:
            return found
        return msgspec.structs.replace(found, ready=False, relay=self._failure)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Relay during the block, then let the calls of the sink end.

        Raises before the block an error that makes every publisher fail, such as
        `SettingsError`, `MissingExtra` and `SchemaError`. A broker or database that is out of
        reach does not end the start.
        """
        relaying = asyncio.create_task(self._relay())
        try:
            await self._begun.wait()
            if relaying.done():
                await relaying
            yield
        finally:
            self._health.draining = True
            self._stopped.set()
            await relaying

    async def _relay(self) -> None:
        probing = asyncio.create_task(self._probe.run())
        try:
            while not self._stopped.is_set():
                await self._relay_once()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            self._begun.set()  # last: `running` then finds that this task is done

    async def _relay_once(self) -> None:
        """Relay until the stop; after a failure, wait until the next publisher may begin."""
        try:
            await self._publish()
        except Exception as error:
            passes = kind_of(error) in PASSING
            if not (passes or self._begun.is_set()):
                raise
            self._tell(error, passes=passes)
            self._begun.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), _WAIT)

    async def _publish(self) -> None:
        publisher = Publisher(
            self._database,
            self._sink,
            self._settings,
            map=self._map,
            apply=self._apply,
            target=self._target,
            hooks=self._hooks,
        )
        try:
            async with publisher as self._publisher:
                self._probe.watch(publisher.sink)
                self._failure = None
                self._begun.set()
                await self._stopped.wait()
        finally:
            self._publisher = None
            self._probe.watch(None)

    def _tell(self, error: Exception, *, passes: bool) -> None:
        self._failure = f"failed: {type(error).__name__}"
        shown = shown_error(error)
        if passes:
            logger.warning("Publisher starts again in %g s: %s", _WAIT, shown)
        else:
            text = "Publisher failed, another starts in %g s: %s"
            logger.error(text, _WAIT, shown, exc_info=without_text(error, OutboxError(shown)))
