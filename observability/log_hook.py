"""The log lines of the library: a hook that turns facts into standard log records.

The text of a record is for people and may change. Its keys are for machines and
stay stable: ``event_id``, ``attempt``, ``max_retries``, ``wait_s``, ``sqlstate``,
``oc_class``, ``topic``, ``result``, ``count``, ``age_s``, ``shard``, and within a
trace ``trace_id`` and ``span_id`` in hexadecimal.
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from dsql_outbox.observability.otel.trace_ids import trace_ids

from .facts import (
    BacklogAge,
    BacklogUnread,
    Fact,
    PublishEnded,
    RelayProgress,
    RetryScheduled,
    ShardsChanged,
    WriteExhausted,
)
from .failure_log import FailureLog
from .visible_text import visible

logger = logging.getLogger("dsql_outbox")


def _show_controls(record: logging.LogRecord) -> bool:
    """Escape control characters in a record's values; return true, as a filter must.

    The values come from events, brokers and databases, and must not forge log lines.
    """
    if isinstance(record.args, tuple):
        record.args = tuple(map(_shown, record.args))
    return True


def _shown(value: object) -> object:
    return visible(str(value)) if isinstance(value, str | BaseException) else value


logger.addFilter(_show_controls)  # all modules of the library use this logger


def _log_retry(fact: RetryScheduled) -> None:
    what = (
        f"Transaction conflict ({fact.oc_class or 'OC000'})"
        if fact.conflict
        else f"Transient failure ({fact.sqlstate or fact.error})"
    )
    logger.warning(
        "%s detected for event %s, attempt %d: retry of at most %d in %.3f s",
        what,
        fact.event_id,
        fact.attempt,
        fact.max_retries,
        fact.wait_s,
        extra={
            "event_id": str(fact.event_id),
            "attempt": fact.attempt,
            "max_retries": fact.max_retries,
            "wait_s": fact.wait_s,
            "sqlstate": fact.sqlstate,
            "oc_class": fact.oc_class,
        }
        | trace_ids(),
    )


def _log_exhausted(fact: WriteExhausted) -> None:
    logger.error(
        "Retries exhausted for event %s after %d attempts: %s (%s)",
        fact.event_id,
        fact.attempts,
        fact.error,
        fact.sqlstate or "no SQLSTATE",
        extra={
            "event_id": str(fact.event_id),
            "attempt": fact.attempts,
            "max_retries": fact.max_retries,
            "sqlstate": fact.sqlstate,
        }
        | trace_ids(),
    )


def _log_old_backlog(fact: BacklogAge) -> None:
    if fact.seconds <= fact.limit:
        return
    logger.warning(
        "The oldest message of the outbox waits for %.0f s (shard %s), over %.0f s: "
        "does a publisher run?",
        fact.seconds,
        fact.shard,
        fact.limit,
        extra={"age_s": fact.seconds, "shard": fact.shard},
    )


def _log_backlog_unread(fact: BacklogUnread) -> None:
    level, advice = logging.DEBUG, ""
    if fact.switched_off:
        level = logging.WARNING
        advice = ": grant SELECT on outbox_backlog and outbox_leases, or set backlog_check=None"
    logger.log(
        level,
        "The age of the backlog could not be read, %s (%s)%s",
        fact.error,
        fact.sqlstate or "no SQLSTATE",
        advice,
        extra={"sqlstate": fact.sqlstate},
    )


class LogFacts:
    """The hook that logs retries, failures and an old backlog.

    A publisher has one of its own, since the lines about its failed messages are
    summed up (docs/metrics.md).
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._failures = FailureLog(now)
        self._takers: dict[type[Fact], Callable[[Any], None]] = {
            RetryScheduled: _log_retry,
            WriteExhausted: _log_exhausted,
            BacklogAge: _log_old_backlog,
            BacklogUnread: _log_backlog_unread,
            PublishEnded: self._take_publish,
            RelayProgress: self._take_progress,
            ShardsChanged: self._take_shards,
        }

    def __call__(self, fact: Fact, /) -> None:
        """Log a fact if a person should know it."""
        taker = self._takers.get(type(fact))
        if taker is not None:
            taker(fact)

    def skips_successes(self) -> bool:
        """Only failures are logged."""
        return True

    def _take_publish(self, fact: PublishEnded) -> None:
        # The relay logs what concerns a topic or the broker, and not one message.
        if fact.result in {"retry", "rejected"}:
            self._failures.add(fact)

    def _take_progress(self, _fact: RelayProgress) -> None:
        self._failures.flush()

    def _take_shards(self, fact: ShardsChanged) -> None:
        if not fact.owned:  # nothing more may come, as at the end
            self._failures.flush(whole=True)


log_facts: Final = LogFacts()
"""The hook of all writers; on by default."""
