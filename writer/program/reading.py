"""A read of the writer, which is retried as a write is. No I/O."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence

import msgspec

from dsql_outbox.outbox import classify
from dsql_outbox.writer.attempt.backoff import Backoff
from dsql_outbox.writer.attempt.steps import Failed, Result, Wait
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Row


class Read(msgspec.Struct, frozen=True):
    """A step: run the query of a reading, on a new connection if `fresh`."""

    reading: "Reading"
    fresh: bool


class Reading(ABC):
    """A query and its result. `error` is set if the retries were not enough."""

    def __init__(self, core: Core) -> None:
        self.error: Exception | None = None
        self._core = core

    @property
    @abstractmethod
    def query(self) -> tuple[bytes, Mapping[str, object]]:
        """The statement, and its parameters."""

    @abstractmethod
    def take(self, rows: Sequence[Row]) -> None:
        """Take the rows of an answer."""

    def steps(self, clock: Callable[[], float]) -> Generator[Read | Wait, Result, None]:
        """Run the query once with success. The outcome of a read is never in doubt."""
        backoff = Backoff(self._core.settings, self._core.database, None, random.random)
        fresh = False
        while isinstance(result := (yield Read(self, fresh)), Failed):
            wait = backoff.next_wait(classify(result.error, sent=False), clock())
            if wait is None:
                self.error = result.error
                return
            yield Wait(wait)
            fresh = True

    def require_success(self) -> None:
        """Raise the error that prevented the reading, if there is one."""
        if self.error is not None:
            raise self.error
