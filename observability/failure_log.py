"""The log lines of failed publishes: few, however many messages fail."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from dsql_outbox.observability.otel.trace_ids import trace_ids

from .facts import PublishEnded, PublishResult

logger = logging.getLogger("dsql_outbox")

EVERY: Final = 10.0
"""Seconds between two lines about one topic and result."""


class _Failures:
    """The failures of one topic and result since the last line about them, at `told_at`."""

    __slots__ = ("count", "ids", "last", "told_at")

    def __init__(self, fact: PublishEnded, told_at: float) -> None:
        self.count = 0
        self.last = fact
        self.ids: dict[str, object] = {}
        self.told_at = told_at


class FailureLog:
    """Logs the first failure of a topic at once, then sums up the others every `EVERY` seconds.

    Rejected messages have lines of their own, so that many retries do not hide them.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._failures: dict[tuple[str, PublishResult], _Failures] = {}

    def add(self, fact: PublishEnded) -> None:
        """Log a failure, or count it."""
        key = fact.topic, fact.result
        failures = self._failures.get(key)
        if failures is None:
            self._failures[key] = _Failures(fact, self._now())
            _log_first(fact)
            return
        failures.count += 1
        failures.last, failures.ids = fact, trace_ids()

    def flush(self, *, whole: bool = False) -> None:
        """Log the sums that are due, or all; a topic without failures is then forgotten."""
        now = self._now()
        for key, failures in list(self._failures.items()):
            seconds = now - failures.told_at
            if seconds < EVERY and not whole:
                continue
            if failures.count:
                _log_sum(failures, seconds)
                failures.count, failures.told_at = 0, now
            else:
                del self._failures[key]


def _log_first(fact: PublishEnded) -> None:
    logger.warning(
        "Publish of event %s to %s failed (%s): %s",
        fact.event_id,
        fact.topic,
        fact.result,
        fact.error,
        extra=_keys(fact, 1) | trace_ids(),
    )


def _log_sum(failures: _Failures, seconds: float) -> None:
    fact = failures.last
    logger.warning(
        "Publish to %s failed %d more times in %.0f s (%s), last event %s: %s",
        fact.topic,
        failures.count,
        seconds,
        fact.result,
        fact.event_id,
        fact.error,
        extra=_keys(fact, failures.count) | failures.ids,
    )


def _keys(fact: PublishEnded, count: int) -> dict[str, object]:
    return {
        "event_id": str(fact.event_id),
        "attempt": fact.attempt,
        "topic": fact.topic,
        "result": fact.result,
        "count": count,
    }
