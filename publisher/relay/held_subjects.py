"""The messages that failed and hold back their subjects; the database keeps them over restarts."""

import math
from collections.abc import Collection, Iterable, Mapping
from time import monotonic
from typing import Final, Literal

from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks import Rejected, Retry

from .outbox_rows import OutboxRow, RowId
from .selection import Hold
from .store import Store

_ERROR_LENGTH: Final = 1_000

_REFRESH: Final = 10.0
"""Seconds after which changes by an operator are noticed."""


class Holds:
    """The failed messages in the shards of this publisher, by key."""

    def __init__(self, store: Store, settings: PublisherSettings) -> None:
        self._store = store
        self._settings = settings
        self._by_key: dict[str, Hold] = {}
        self._read_at = monotonic()

    @property
    def by_key(self) -> Mapping[str, Hold]:
        """The failed message of each subject that has one, by key."""
        return self._by_key

    async def load(self, shards: Collection[int]) -> None:
        """Load the failed messages of shards that this publisher has taken."""
        self._by_key |= await self._store.holds(shards)

    async def refresh(self, shards: Collection[int]) -> None:
        """If messages wait, read them again every `_REFRESH` seconds.

        An operator may have changed them meanwhile.
        """
        if self._by_key and monotonic() - self._read_at >= _REFRESH:
            self._by_key = await self._store.holds(shards)
            self._read_at = monotonic()

    def doubt(self) -> None:
        """Let the next `refresh` read at once, because a message that was due is gone."""
        self._read_at = float("-inf")

    def drop(self, shards: Collection[int]) -> None:
        """Forget the messages of shards that this publisher has lost."""
        self._by_key = {k: h for k, h in self._by_key.items() if h.id.shard not in shards}

    def due(self, now: float) -> list[RowId]:
        """The messages whose wait is over."""
        return [hold.id for hold in self._by_key.values() if hold.retry_at <= now]

    def next_due(self, now: float) -> float:
        """Seconds until the next wait is over; infinity if no message waits."""
        waits = (hold.retry_at - now for hold in self._by_key.values())
        return max(0.0, min(waits, default=math.inf))

    def attempt(self, row: OutboxRow) -> int:
        """The number of the next attempt to send this row, from 1."""
        hold = self._by_key.get(row.key) if self._by_key else None
        return hold.attempts + 1 if hold is not None and hold.id == row.id else 1

    async def forget(self, rows: Iterable[OutboxRow]) -> None:
        """Delete the failures of rows that were delivered after all."""
        recovered = [row for row in rows if self.attempt(row) > 1]
        if recovered:
            await self._store.forget_failures([row.id for row in recovered])
            for row in recovered:
                del self._by_key[row.key]

    async def fail(self, row: OutboxRow, outcome: Retry | Rejected) -> Literal["failed", "dead"]:
        """Record a failed attempt; the row then waits for the next one, or is given up."""
        settings, attempts = self._settings, self.attempt(row)
        error = _storable(outcome.error[:_ERROR_LENGTH])
        exhausted = isinstance(outcome, Rejected) or attempts >= settings.attempts
        if exhausted and settings.on_dead_letter == "release":
            await self._store.bury(row.id, error=error, attempts=attempts)
            hold = self._by_key.get(row.key)
            if hold is not None and hold.id == row.id:
                del self._by_key[row.key]
            return "dead"
        seconds = None if exhausted else self._backoff(attempts)
        await self._store.record_failure(row.id, error=error, attempts=attempts, seconds=seconds)
        retry_at = math.inf if seconds is None else monotonic() + seconds
        self._by_key[row.key] = Hold(row.id, attempts, retry_at)
        return "failed"

    def _backoff(self, attempts: int) -> float:
        settings = self._settings
        return min(settings.backoff_cap, settings.backoff_base * 2.0 ** min(attempts - 1, 64))


def _storable(text: str) -> str:
    """The text of an error without NUL and lone surrogates, which the database refuses."""
    return text.replace("\0", "").encode(errors="replace").decode()
