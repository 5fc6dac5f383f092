"""The backlog alarm: writers see how long messages wait, whether a publisher runs or not.

After a write that committed, at most once an interval in a process, the writer
asks how old the oldest message is, on the connection that it holds anyway. What
goes wrong there is told to the hooks and never to the caller.
"""

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import Any, Final

import psycopg

from dsql_outbox.observability import BacklogAge, BacklogUnread, Fact, Hook, emit
from dsql_outbox.outbox import Database, call_in_children
from dsql_outbox.schema import statement

from .settings import WriterSettings

LONGEST: Final = 1.0
"""Seconds that a check may take; after that its connection is closed."""


class _Turns:
    """Whose turn it is: one for all writers of this process on the same tables."""

    def __init__(self) -> None:
        self.is_off = False
        self._last: float | None = None
        self._renew_lock()
        call_in_children(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def take(self, now: float, interval: float) -> bool:
        """Whether nobody checked for an interval; if so, the caller does."""
        with self._lock:
            if self.is_off or (self._last is not None and now - self._last < interval):
                return False
            self._last = now
            return True

    def switch_off(self) -> bool:
        """Let nobody check again; whether this was the first to say so."""
        with self._lock:
            was_off, self.is_off = self.is_off, True
            return not was_off


@cache
def _turns(_tables: str) -> _Turns:
    return _Turns()


class Alarm:
    """When one writer checks the backlog, and what it tells of it.

    It checks nothing in the first interval after its first write, so a process
    that lives shortly pays nothing.
    """

    def __init__(
        self, database: Database, settings: WriterSettings, hooks: Iterable[Hook] = ()
    ) -> None:
        self.query = statement("backlog_age", database.schema)
        self._interval = settings.backlog_check
        self._limit = settings.backlog_warn
        self._hooks = tuple(hooks)
        self._turns = _turns(repr(database))
        self._began: float | None = None

    def is_due(self) -> bool:
        """Whether to check now; to be asked after a write that committed."""
        if self._interval is None:
            return False
        now = monotonic()
        if self._began is None:
            self._began = now
        return now - self._began >= self._interval and self._turns.take(now, self._interval)

    def deadline(self, earlier: float | None) -> float:
        """When a check that begins now must end, not after the write's own deadline."""
        own = monotonic() + LONGEST
        return own if earlier is None else min(own, earlier)

    def saw(self, rows: Sequence[Sequence[Any]]) -> None:
        """Tell how old the backlog is."""
        shard, seconds = rows[0] if rows else (None, 0.0)
        emit(self._hooks, BacklogAge(max(0.0, seconds), shard, self._limit))

    def failed(self, error: Exception) -> None:
        """Tell that it could not be read; whoever may not read it does not ask again."""
        sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
        forbidden = isinstance(error, psycopg.errors.InsufficientPrivilege)
        switched_off = forbidden and self._turns.switch_off()
        with suppress(Exception):  # it may be a hook's own error
            emit(self._hooks, _unread(error, sqlstate, switched_off=switched_off))


def _unread(error: Exception, sqlstate: str | None, *, switched_off: bool) -> Fact:
    return BacklogUnread(type(error).__name__, sqlstate, switched_off)
