"""The publisher under test: the real relay and the real leases, on the models of a run."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import anyio

from dsql_outbox.outbox import Database
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay import reader, sender
from dsql_outbox.publisher.relay.applier import Nowhere
from dsql_outbox.publisher.relay.memory import (
    breaker,
    pages,
    paging,
    queues,
    scans,
    shares,
    subjects,
)
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings

from .applied import Function
from .broker import LIMIT, ModelSink
from .mapped import ModelMap
from .statements import ModelLeaseTable, ModelStore

_DATABASE: Final = Database("postgresql://nobody@nowhere/none")
"""The leases take the name of the schema from it; nothing connects."""

_LIMITS: Final = (
    (reader, "_FIRST_WAIT", 0.25),
    (breaker, "FAILURES", 3),
    (breaker, "OPEN_FOR", 2),
    (TopicPauses, "PAUSE", 2),
    (subjects, "MAX_WAITING", 4),
    (subjects, "_RUNS", 2),
    (shares, "MAX_ROWS", 40),
    (shares, "_SPARE", 1 / 4),  # or a topic would begin with a single row
    (pages.Page, "LEAST", 1),
    (paging, "MOST", 3),
    (paging, "LONGEST", 4),
    (queues, "MAX_PASSED", 3),
    (sender, "MAX_IN_FLIGHT", 16),
    (sender, "_CALL", 6),
    (sender, "MAX_RUN", 3),
    (sender, "_LIMIT", LIMIT + 2),
)


@contextmanager
def small_limits(sweeps: float) -> Generator[None]:
    """Make the limits of the relay so small that small schedules reach them.

    `sweeps` is the shortest rest of a sweep in seconds.
    """
    with ExitStack() as stack:
        for module, name, limit in (*_LIMITS, (scans, "_REST", sweeps)):
            stack.enter_context(patch.object(module, name, limit))
        yield


@dataclass(frozen=True)
class Parts:
    """The parts of a publisher. `boot_clock` and `host_clock` are in seconds."""

    name: str
    store: ModelStore
    sink: ModelSink
    apply: Function | None
    map: ModelMap | None
    leases: ModelLeaseTable
    settings: TunedSettings
    boot_clock: Callable[[], float]
    host_clock: Callable[[], float]


class RelayProgram:
    """Ties relay and leases together as `Publisher` does, without hooks."""

    def __init__(self, parts: Parts) -> None:
        self._leases = leases = Leases(
            _DATABASE,
            parts.settings,
            self._changed,
            busy=self._busy,
            progresses=self._progresses,
            clock=parts.boot_clock,
            table=parts.leases,
            owner=parts.name,
        )
        sink = parts.sink if parts.apply is None else Nowhere()
        apply: Any = parts.apply  # its connection is a model
        mapper = None if parts.map is None else Mapper(parts.map, (), parts.settings, sink)
        self._relay = Relay(parts.store, sink, parts.settings, leases, apply=apply, mapper=mapper)
        self.has_begun = False
        """Whether it has its first leases: an error of the database before that ends it."""

    async def run(self) -> None:
        """Relay until `stop`."""
        await self._leases.open()
        self.has_begun = True
        try:
            await self._relay.run()
        finally:
            with anyio.CancelScope(shield=True):
                await self._leases.close()

    def stop(self) -> None:
        """Let `run` return."""
        self._leases.stop()
        self._relay.stop()

    def ring(self) -> None:
        """Do what a ring of the doorbell does."""
        self._relay.wake()

    def _changed(self, _owned: frozenset[int], _before: frozenset[int]) -> None:
        self._relay.wake()

    def _busy(self) -> set[int]:
        return self._relay.busy_shards

    def _progresses(self) -> bool:
        return self._relay.progresses
