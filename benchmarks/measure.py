"""What the benchmarks share: servers with tables, events, and medians."""

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

EVENT_BYTES = 400
"""About the size of the events that the seed's service gets."""


_EVENT = (
    '{"eventHeader":{"uuid":"%s","eventName":"Car Moved","eventType":"CarMoved",'
    '"createdDate":"2025-06-01T10:00:00Z"},"entities":[{"entityHeader":'
    '{"entityType":"Car","entityId":"%s"},"n":%d,"note":"~"}]}'
)


@contextmanager
def embedded() -> Iterator[str]:
    """The URL of a new PostgreSQL with the outbox tables; fsync is on."""
    with EmbeddedPostgres(settings={"max_wal_size": "4GB"}) as server:
        apply(Database(server.url))
        yield server.url


def event(subject: str, n: int) -> bytes:
    """One event about one car, as JSON of `EVENT_BYTES`; cheap, as making it is not measured."""
    text = _EVENT % (uuid4(), subject, n)
    return text.replace("~", "x" * (EVENT_BYTES - len(text) + 1)).encode()


class Target(NamedTuple):
    """A figure, what it must not miss, and how it came out."""

    name: str
    value: float
    limit: float
    most: bool = False
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.value <= self.limit if self.most else self.value >= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.most else ">="
        verdict = "ok" if self.holds else "MISSED"
        return f"{self.name:<58} {self.value:8.2f}{self.unit} ({sign} {self.limit:g}) {verdict}"


def spread(values: Sequence[float]) -> str:
    """The median, and how far the rounds lie apart in percent of it."""
    middle = statistics.median(values)
    return f"{middle:10,.1f}  +-{50 * (max(values) - min(values)) / middle:3.0f} %"


def machine() -> str:
    """What the numbers depend on most."""
    return f"{len(os.sched_getaffinity(0))} cores, shared by client and server; fsync on"
