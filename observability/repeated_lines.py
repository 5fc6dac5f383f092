"""Limits log lines of a kind that may come by the thousand: the first lines, then sums."""

import logging
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Final, NamedTuple

logger: Final = logging.getLogger("dsql_outbox")

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after so many seconds, and returns immediately."""


class LogLine(NamedTuple):
    """A log line: its level, its text with arguments, and its keys for machines."""

    level: int
    text: str
    args: tuple[object, ...]
    keys: Mapping[str, object]

    def log(self) -> None:
        """Log the line by itself."""
        logger.log(self.level, self.text, *self.args, extra={**self.keys, "count": 1})

    def log_sum(self, count: int, seconds: float) -> None:
        """Log the line in place of `count` lines of its kind."""
        if count == 1:
            self.log()
            return
        text, args = f"{self.text}; this and %d more in %.1f s", (*self.args, count - 1, seconds)
        logger.log(self.level, text, *args, extra={**self.keys, "count": count})


class _Recent:
    """The lines of one kind since `began`: `logged` by themselves, and `count` to be summed up."""

    __slots__ = ("began", "count", "last", "logged")

    def __init__(self, began: float, logged: int) -> None:
        self.began = began
        self.logged = logged
        self.count = 0
        self.last: Callable[[], LogLine] | None = None

    def log_sum(self, now: float) -> None:
        """Log one line for those that were counted, if any."""
        if self.last is not None:
            self.last().log_sum(self.count, now - self.began)


def in_a_thread(seconds: float, work: Callable[[], None]) -> None:
    """Call `work` after so many seconds, in a thread that does not outlive the process."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    with suppress(RuntimeError):  # no thread can start while the interpreter ends
        timer.start()


class RepeatedLines:
    """Logs the first lines of a kind immediately, and sums up the others every `interval` seconds.

    `first` lines are logged in the first interval. A kind without lines for an interval
    starts again. The key ``count`` of a line is the number of lines that it stands for.
    """

    def __init__(
        self,
        *,
        first: int,
        interval: float,
        now: Callable[[], float] = monotonic,
        later: Later = in_a_thread,
    ) -> None:
        self._first = first
        self._interval = interval
        self._now = now
        self._later = later
        self._begin()

    def _leave_parent(self) -> None:
        """Start again in a forked child: it lacks the parent's thread, and the lock may be held."""
        if self._pid != os.getpid():
            self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._recent: dict[Hashable, _Recent] = {}
        self._is_waiting = False

    def add(self, kind: Hashable, line: Callable[[], LogLine]) -> None:
        """Log a line, or count it. It is made when it is logged, in the context of this call."""
        self._leave_parent()
        with self._lock:
            is_first = self._take(kind, line)
        if is_first:
            line().log()

    def flush(self) -> None:
        """Log all sums now, and start again."""
        self._leave_parent()
        with self._lock:
            before, self._recent = self._recent, {}
        self._log_sums(before)

    def _take(self, kind: Hashable, line: Callable[[], LogLine]) -> bool:
        """Return whether to log the line by itself. If not, count it."""
        recent = self._recent.get(kind)
        if recent is None or (not recent.count and self._is_over(recent)):
            recent = self._recent[kind] = _Recent(self._now(), 0)
        if recent.logged < self._first:
            recent.logged += 1
            return True
        recent.count, recent.last = recent.count + 1, partial(copy_context().run, line)
        if not self._is_waiting:
            self._is_waiting = True
            self._later(self._interval, self._sum_up)
        return False

    def _sum_up(self) -> None:
        """Log the sums. A kind that was counted stays counted, and logs no first lines."""
        with self._lock:
            self._is_waiting = False
            before, now = self._recent, self._now()
            self._recent = {
                kind: _Recent(now, self._first) if recent.count else recent
                for kind, recent in before.items()
                if recent.count or not self._is_over(recent)
            }
        self._log_sums(before)

    def _log_sums(self, before: Mapping[Hashable, _Recent]) -> None:
        now = self._now()
        for recent in before.values():
            recent.log_sum(now)

    def _is_over(self, recent: _Recent) -> bool:
        return self._now() - recent.began >= self._interval
