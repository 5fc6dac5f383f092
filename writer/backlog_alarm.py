"""The backlog alarm: a writer reports the age of the oldest message, publisher or not.

After a committed write, and at most once per interval and process, the writer reads
the age of the oldest message on a connection that it borrows for this. An error of that read
goes to the hooks and never to the caller.
"""

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import Any

from dsql_outbox.observability.facts import BacklogAge, BacklogUnread
from dsql_outbox.observability.hooks import Hook, emit
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.failure import FailureKind, kind_of, sqlstate_of
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.oldest_look import HEAD_POSITION

from .settings import WriterSettings


class _Turns:
    """Limits the checks of all writers of this process that use the same tables."""

    def __init__(self) -> None:
        self.is_off = False
        self._last: float | None = None
        self._renew_lock()
        call_in_children(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def take(self, now: float, interval: float) -> bool:
        """Return True, and count a check at `now`, if the last one is an interval ago."""
        with self._lock:
            if self.is_off or (self._last is not None and now - self._last < interval):
                return False
            self._last = now
            return True

    def switch_off(self) -> bool:
        """End all checks of this process. Return whether they were still on."""
        with self._lock:
            was_off, self.is_off = self.is_off, True
            return not was_off


@cache
def _turns(_tables: str) -> _Turns:
    return _Turns()


class Alarm:
    """Decides when one writer checks the backlog, and reports the result to the hooks.

    The writer makes no check in the first interval after its first write, so a
    short-lived process pays nothing.
    """

    def __init__(self, database: Database, settings: WriterSettings, hooks: Iterable[Hook]) -> None:
        self.query = statement("backlog_age", database.schema)
        self.parameters = {"target": None, "since": HEAD_POSITION}
        self._interval = settings.backlog_check
        self._limit = settings.backlog_warn
        self._hooks = tuple(hooks)
        self._turns = _turns(repr(database))
        self._began: float | None = None

    def is_due(self) -> bool:
        """Return whether to check now. Call it after a write that committed."""
        if self._interval is None:
            return False
        now = monotonic()
        if self._began is None:
            self._began = now
        return now - self._began >= self._interval and self._turns.take(now, self._interval)

    def tell_age(self, rows: Sequence[Sequence[Any]]) -> None:
        """Report the age of the backlog, from the rows of `query`."""
        shard, seconds = rows[0][:2] if rows else (None, 0.0)
        emit(self._hooks, BacklogAge(max(0.0, seconds), shard, self._limit))

    def tell_failure(self, error: Exception) -> None:
        """Report that the backlog could not be read. Without the right to read it, stop asking."""
        forbidden = kind_of(error) is FailureKind.FORBIDDEN
        switched_off = forbidden and self._turns.switch_off()
        with suppress(Exception):  # the error may come from a hook, which would raise again
            emit(self._hooks, BacklogUnread(type(error).__name__, sqlstate_of(error), switched_off))
