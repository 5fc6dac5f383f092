"""The log lines of the library: a hook that turns facts into standard log records.

The text of a record is for people and may change. Its keys are for machines and
stay stable: those of `json_logs.KEYS`, and within a trace ``trace_id`` and ``span_id``
in hexadecimal.
"""

import atexit
import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

from dsql_outbox.observability.otel.spans import trace_ids

from .facts import (
    BacklogAge,
    BacklogUnread,
    Fact,
    PublishEnded,
    RetriesExhausted,
    RetryScheduled,
    ShardsChanged,
    TransactionFailure,
)
from .repeated_lines import Later, LogLine, RepeatedLines, in_a_thread, logger
from .shown_text import visible

EVERY: Final = 10.0
"""Seconds between two lines about one topic and result."""

_SHOWN: Final = 4
"""The number of entities of a conflict in a line. The key `entities` has more."""

_NEVER_REACHED: Final = (
    "; no connection to it has succeeded yet: check the host and the port, "
    "and that a server accepts connections there"
)


_LONGEST: Final = 10_000
"""The most characters of a value in a log line; a sink of a user chooses its texts."""


def _show_controls(record: logging.LogRecord) -> bool:
    """Escape control characters in a record's values; return true, as a filter must.

    The values come from events, brokers and databases, and must not forge log lines.
    """
    if isinstance(record.args, tuple):
        record.args = tuple(map(_shown, record.args))
    return True


def _shown(value: object) -> object:
    return visible(str(value)[:_LONGEST]) if isinstance(value, str | BaseException) else value


logger.addFilter(_show_controls)  # all modules of the library use this logger


def _line_of_retry(fact: RetryScheduled) -> LogLine:
    failure = fact.failure
    what = (
        f"Transaction conflict ({failure.oc_class or _code(failure)})"
        if fact.conflict
        else f"Transient failure ({_code(failure)})"
    )
    return LogLine(
        logging.WARNING,
        "%s detected %s, attempt %d at %s: %s; retry in %.3f s (%s)%s",
        (
            what,
            _place(fact),
            fact.attempt,
            failure.host,
            failure.text,
            fact.wait_s,
            str(failure.budget),
            _advice(failure) if fact.attempt == 1 else "",
        ),
        {"attempt": fact.attempt, "wait_s": fact.wait_s} | _keys(fact),
    )


def _line_of_end(fact: RetriesExhausted) -> LogLine:
    failure = fact.failure
    return LogLine(
        logging.ERROR,
        "Retries exhausted %s after %d attempts at %s: %s (%s; %s%s)%s",
        (
            _place(fact),
            fact.attempts,
            failure.host,
            failure.text,
            _code(failure),
            str(failure.budget),
            ", cut short by the timeout of the call" if fact.is_cut_short else "",
            _advice(failure),
        ),
        {"attempt": fact.attempts} | _keys(fact),
    )


def _code(failure: TransactionFailure) -> str:
    return failure.sqlstate or failure.error


def _place(fact: RetryScheduled | RetriesExhausted) -> str:
    if not fact.events:
        return "in transact"
    others = f" and {fact.events - 1} more" if fact.events > 1 else ""
    return f"for event {fact.event_id}{_named(fact.entities)}{others}"


def _named(entities: Sequence[str]) -> str:
    if not entities:
        return ""
    left_out = ", .." if len(entities) > _SHOWN else ""
    return f" ({', '.join(entities[:_SHOWN])}{left_out})"


def _advice(failure: TransactionFailure) -> str:
    is_new = failure.budget.reason == "outage" and not failure.was_reached
    return _NEVER_REACHED if is_new else ""


def _keys(fact: RetryScheduled | RetriesExhausted) -> dict[str, object]:
    failure, budget = fact.failure, fact.failure.budget
    return {
        "event_id": str(fact.event_id) if fact.events else None,
        "events": fact.events,
        "host": failure.host,
        "reason": budget.reason,
        "used": budget.used,
        "limit": budget.limit,
        "left_s": budget.left,
        "sqlstate": failure.sqlstate,
        "oc_class": failure.oc_class,
        **({"entities": list(fact.entities)} if fact.entities else {}),
    } | trace_ids()


def _line_of_publish(fact: PublishEnded) -> LogLine:
    return LogLine(
        logging.WARNING,
        "Publish of event %s to %s failed (%s): %s",
        (fact.event_id, fact.topic, fact.result, fact.error),
        {
            "event_id": str(fact.event_id),
            "attempt": fact.attempt,
            "topic": fact.topic,
            "result": fact.result,
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
    """Log that the read beside the writes failed: for people once it is given up."""
    advice = ": grant SELECT on outbox_backlog and outbox_leases, or set backlog_check=None"
    logger.log(
        logging.WARNING if fact.switched_off else logging.DEBUG,
        "The age of the backlog could not be read, %s (%s)%s",
        fact.error,
        fact.sqlstate or "no SQLSTATE",
        advice if fact.switched_off else "",
        extra={"sqlstate": fact.sqlstate},
    )


class LogFacts:
    """The hook that logs retries, failures and an old backlog.

    Lines of one kind that come often are summed up: of a publisher per topic and result, of the
    writers of a process per host and reason (docs/reference/telemetry.md).
    """

    def __init__(self, now: Callable[[], float] = monotonic, later: Later = in_a_thread) -> None:
        self._writes = RepeatedLines(first=10, interval=1.0, now=now, later=later)
        self._publishes = RepeatedLines(first=1, interval=EVERY, now=now, later=later)
        self._takers: dict[type[Fact], Callable[[Any], None]] = {
            RetryScheduled: self._take_retry,
            RetriesExhausted: self._take_end,
            BacklogAge: _log_old_backlog,
            BacklogUnread: _log_backlog_unread,
            PublishEnded: self._take_publish,
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

    def flush(self) -> None:
        """Log the sums now, as at the end of a program."""
        self._writes.flush()
        self._publishes.flush()

    def _take_retry(self, fact: RetryScheduled) -> None:
        failure = fact.failure
        kind = failure.host, failure.budget.reason, "retried"
        self._writes.add(kind, partial(_line_of_retry, fact))

    def _take_end(self, fact: RetriesExhausted) -> None:
        failure = fact.failure
        kind = failure.host, failure.budget.reason, "exhausted"
        self._writes.add(kind, partial(_line_of_end, fact))

    def _take_publish(self, fact: PublishEnded) -> None:
        # The relay logs what concerns a topic or the broker, and not one message.
        if fact.result in {"retry", "rejected", "deferred"}:
            self._publishes.add((fact.topic, fact.result), partial(_line_of_publish, fact))

    def _take_shards(self, fact: ShardsChanged) -> None:
        if not fact.owned:  # nothing more may come, as at the end
            self.flush()


log_facts: Final = LogFacts()
"""The hook of all writers; on by default."""

atexit.register(log_facts.flush)
