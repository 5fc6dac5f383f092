"""The conflict report of this process: counts conflicts, and says when to store the counts.

All writers of a process that use the same tables share one report and one row. A row covers
about an hour; then the process begins another one. No other process changes a row, so
writers do not conflict about it. An error goes to the hooks and never to a caller.
"""

import random
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from time import monotonic, time_ns
from typing import Final
from uuid import UUID, uuid4

import msgspec

from dsql_outbox.observability.facts import ConflictsUnstored
from dsql_outbox.observability.hooks import Hook, emit
from dsql_outbox.outbox.contention import encode_conflicts
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.event.event_parser import ParsedEvent
from dsql_outbox.outbox.failure import (
    DatabaseFailure,
    FailureKind,
    kind_of,
    schema_defect,
    sqlstate_of,
)
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer.settings import WriterSettings

from .sketch import Conflict, EntityKey, Sketch

PERIOD: Final = 3600.0
"""Seconds that one row covers."""

MOST: Final = 16
"""The largest number of entities of one transaction that are counted, chosen at random."""

_NS: Final = 1e-9


class StoredReport(msgspec.Struct, frozen=True):
    """A report to store in the row of `owner`. `is_first`: the row does not exist yet."""

    owner: UUID
    report: str
    is_first: bool


class SharedCounts:
    """The counts of all writers of this process that use the same tables.

    `has_news`: there was a conflict since the last report. It may be read without the lock.
    """

    def __init__(self) -> None:
        self.is_off = False
        self._start_empty()
        call_in_children(self._start_empty)

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._renew()

    def _renew(self) -> None:
        self.has_news = False
        self._owner = uuid4()
        self._sketch = Sketch()
        self._began: float | None = None
        self._stored: float | None = None

    def add(self, conflict: Conflict, now: float, *, coalesced: bool) -> None:
        """Count a conflict."""
        with self._lock:
            if self._began is None:
                self._began = now
            self._sketch.add(conflict, now, coalesced=coalesced)
            self.has_news = not self.is_off

    def take(self, now: float, interval: float) -> StoredReport | None:
        """Return the report if it has news and the last one was taken an interval ago."""
        with self._lock:
            last = self._began if self._stored is None else self._stored
            if not self.has_news or last is None or now - last < interval:
                return None
            return self._take_report(now)

    def retry(self) -> None:
        """Store the report again after an interval."""
        self.has_news = not self.is_off

    def switch_off(self) -> bool:
        """Store no more reports of this process. Return whether they were still on."""
        with self._lock:
            was_off, self.is_off, self.has_news = self.is_off, True, False
            return not was_off

    def _take_report(self, now: float) -> StoredReport:
        report = encode_conflicts(self._sketch.report(now)).decode()
        taken = StoredReport(self._owner, report, self._stored is None)
        self._stored, self.has_news = now, False
        if self._began is not None and now - self._began >= PERIOD:
            self._renew()
        return taken


@cache
def shared_counts(_tables: str) -> SharedCounts:
    """Return the counts of this process for these tables."""
    return SharedCounts()


class ConflictLog:
    """Counts the conflicts of one writer, and says when to store the report of its process.

    `store` and `prune` are the statements for a report that `take_due` or `take_last` returned.
    """

    def __init__(self, database: Database, settings: WriterSettings, hooks: Iterable[Hook]) -> None:
        self.store = statement("conflicts_store", database.schema)
        self.prune = statement("conflicts_prune", database.schema)
        self._interval = settings.conflict_report
        self._coalesced = settings.coalesce > 0
        self._hooks = tuple(hooks)
        self.counts = shared_counts(repr(database))

    @property
    def is_on(self) -> bool:
        """Whether conflicts are counted."""
        return self._interval is not None and not self.counts.is_off

    def count(  # noqa: PLR0913 - the parts of one report
        self,
        failure: DatabaseFailure,
        events: Sequence[ParsedEvent],
        *,
        given_up: Sequence[ParsedEvent],
        started_ns: int,
        wait: float | None,
        in_transact: bool = False,
    ) -> None:
        """Count the failure of a transaction of these events, if it is a conflict of entities.

        `given_up` are the events that are not tried again. The transaction began at `started_ns`,
        and `wait` seconds follow it.
        """
        if not self.is_on:
            return
        seconds = (time_ns() - started_ns) * _NS + (wait or 0.0)
        found = conflict_of(failure, events, given_up, seconds=seconds, in_transact=in_transact)
        if found is not None:
            self.counts.add(found, monotonic(), coalesced=self._coalesced)

    def take_due(self) -> StoredReport | None:
        """Return the report if it has news and the last one is an interval ago."""
        return None if self._interval is None else self.counts.take(monotonic(), self._interval)

    def take_last(self) -> StoredReport | None:
        """Return the report if it has news, for a writer that is closed."""
        return None if self._interval is None else self.counts.take(monotonic(), 0.0)

    def tell_failure(self, error: Exception) -> None:
        """Report that the report could not be stored. Without the right or the table, stop."""
        switched_off = _is_lasting(error) and self.counts.switch_off()
        self.counts.retry()
        with suppress(Exception):  # the error may come from a hook, which would raise again
            emit(
                self._hooks,
                ConflictsUnstored(type(error).__name__, sqlstate_of(error), switched_off),
            )


def _is_lasting(error: Exception) -> bool:
    """Return whether a missing right or table makes every later report fail too."""
    forbidden = kind_of(error) is FailureKind.FORBIDDEN
    return forbidden or schema_defect(error) is not None


def conflict_of(
    failure: DatabaseFailure,
    events: Sequence[ParsedEvent],
    given_up: Sequence[ParsedEvent],
    *,
    seconds: float,
    in_transact: bool,
) -> Conflict | None:
    """Return the conflict of a transaction of these events, which cost so many seconds.

    The database does not name the entity that conflicted, so every entity of the transaction
    counts. A batch is halved after a conflict, so the right entity is soon alone. None: the
    transaction failed otherwise.
    """
    # Only this kind is about entities. OC001 names none, and a collision is about an event's id.
    if failure.kind is not FailureKind.CONFLICT:
        return None
    touched = _touched(events)
    return Conflict(
        touched=_sampled(touched),
        is_sampled=len(touched) > MOST,
        in_transact=in_transact,
        exhausted=min(1, len(given_up)) if in_transact else len(given_up),
        given_up=_touched(given_up).keys(),
        lost_seconds=max(0.0, seconds),
    )


def _touched(events: Iterable[ParsedEvent]) -> dict[EntityKey, bool]:
    """Return each entity, and whether one of the events touches another one beside it."""
    touched: dict[EntityKey, bool] = {}
    for event in events:
        for touch in event.touches:
            key = touch.entity_type, touch.entity_id
            touched[key] = touched.get(key, False) or len(event.touches) > 1
    return touched


def _sampled(touched: dict[EntityKey, bool]) -> dict[EntityKey, bool]:
    if len(touched) <= MOST:
        return touched
    return {key: touched[key] for key in random.sample(list(touched), MOST)}
