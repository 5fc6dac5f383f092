"""The settings of a writer and their defaults."""

import os
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from dsql_outbox.outbox import (
    DEFAULT_SOURCE,
    SettingsError,
    require_not_negative,
    require_positive,
    require_source,
    require_text,
    require_whole,
)

from .topic_template import require_template

_MAX_OUTAGE: Final = 10.0


def _unless_in_lambda(seconds: float) -> float | None:
    """Return None in AWS Lambda, where each of many short processes would ask the database."""
    return None if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else seconds


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """Settings of `Writer` and `AsyncWriter`. Times are in seconds.

    Retries: conflicts, changes of the schema (OC001) and an outage together take at most
    `timeout`, the limit of a call without a `timeout=` of its own. In `write_many` it is the
    limit of each transaction. A conflict with data is retried at most `max_retries` times, and
    a conflict with a change of the schema `max_schema_changes` times (None: until the time of
    the call is over). Each has its own waits: `base`, 2 `base`, 4 `base` and so on, at most
    `cap`. A random share of up to `jitter` is added to each. While the database cannot be
    reached, attempts continue for `max_outage`. `origin` makes other settings.

    Connections: with `connections` ``new``, a failed connection is closed before the
    wait and another is opened after it. With ``pool``, a retry reuses a healthy
    connection. At most `max_connections` are open or being opened. The `timeout` of a call
    ends its wait, not the opening, which serves the next call. A connection that was idle for more
    than `max_idle` (None: no limit) is replaced before use; that does not count as an
    attempt.

    Form: ``single`` writes with one statement. ``plain`` writes with one transaction of
    statements without data-modifying CTEs, sent together. ``auto`` asks the database at
    the writer's first use whether it supports the single form.

    Group commit: `coalesce` is the number of lanes of `AsyncWriter.write`; 0 means one
    transaction per event. Calls made while a transaction of their lane is in flight share
    the next one, at most 128 of them. If the database refuses a transaction,
    it is halved until the event at fault fails alone. While 10,000 calls wait for their
    transaction, further calls wait to be queued.

    Messages: `topic` is a template with the fields {event_type}, {event_name} and
    {entity_type} (of the subject), for events without their own topic. A topic has 1 to 249
    of A-Z a-z 0-9 . _ - and no empty part between dots. With `any_topic`, it is any text of
    up to 255 characters. `source` is the CloudEvents source of every message: 1 to 128
    visible characters of ASCII. Consumers distinguish outboxes by it.

    Backlog alarm: at most every `backlog_check` seconds (None: never, the default in AWS
    Lambda), one write of the process reads the age of the oldest message after its
    commit. That write returns one round trip later, and at most 1 s later. Above
    `backlog_warn` seconds the log has a warning.

    Conflict report: a process counts which entities conflict. At most every
    `conflict_report` seconds (None: never, the default in AWS Lambda), and at its close, a
    writer stores the counts if there was a conflict since. One write returns one round trip
    later then, and at most 1 s later. Without a conflict nothing is counted or stored.

    Raises `SettingsError` for an invalid value.

        >>> settings = WriterSettings(max_retries=5, topic="cars.{event_type}")
        >>> with Writer(database, settings) as writer:
        ...     writer.write(event).status
        'committed'
    """

    timeout: float | None = 30.0
    max_retries: int | None = None
    max_schema_changes: int | None = None
    base: float = 0.1
    cap: float = 2.0
    jitter: float = 1.0
    max_outage: float = _MAX_OUTAGE
    connections: Literal["new", "pool"] = "new"
    max_connections: int = 10
    max_idle: float | None = None
    form: Literal["auto", "single", "plain"] = "auto"
    coalesce: int = 0
    topic: str = "events.{event_type}"
    any_topic: bool = False
    source: str = DEFAULT_SOURCE
    backlog_check: float | None = field(default_factory=lambda: _unless_in_lambda(30.0))
    backlog_warn: float = 60.0
    conflict_report: float | None = field(default_factory=lambda: _unless_in_lambda(10.0))

    @classmethod
    def origin(cls) -> Self:
        """Return the settings with the schedule of the system that this library comes from.

        That is three retries, after exactly 100, 200 and 400 ms, and no time limit. They suit
        callers that rarely conflict. If many write one entity, some fail early. Change the other
        settings by `dataclasses.replace`.

            >>> settings = WriterSettings.origin()
            >>> settings.max_retries, settings.jitter, settings.timeout
            (3, 0.0, None)
        """
        return cls(timeout=None, max_retries=3, max_schema_changes=10, jitter=0.0)

    def __post_init__(self) -> None:
        """Raise `SettingsError` for an invalid value."""
        owner = "WriterSettings"
        require_positive(
            owner, {"base": self.base, "cap": self.cap, "max_connections": self.max_connections}
        )
        counts = {"max_retries": self.max_retries, "max_schema_changes": self.max_schema_changes}
        counted = {name: count for name, count in counts.items() if count is not None}
        require_not_negative(
            owner,
            {
                **counted,
                "jitter": self.jitter,
                "max_outage": self.max_outage,
                "coalesce": self.coalesce,
                "backlog_warn": self.backlog_warn,
            },
        )
        require_whole(
            owner, {**counted, "max_connections": self.max_connections, "coalesce": self.coalesce}
        )
        optional = {
            "timeout": self.timeout,
            "max_idle": self.max_idle,
            "backlog_check": self.backlog_check,
            "conflict_report": self.conflict_report,
        }
        require_positive(owner, {k: v for k, v in optional.items() if v is not None})
        if self.timeout is None and len(counted) < len(counts):
            raise SettingsError(
                f"{owner}(timeout=None) needs max_retries and max_schema_changes: "
                "else nothing would end the retries of a conflict"
            )
        # The default of max_outage may be longer: a short timeout alone is a fine setting.
        if self.timeout is not None and self.max_outage > max(self.timeout, _MAX_OUTAGE):
            raise SettingsError(
                f"{owner}.max_outage={self.max_outage:g} is over timeout={self.timeout:g}, which "
                "ends each call before: give a timeout of at least that, or None"
            )
        if self.connections not in ("new", "pool"):
            raise SettingsError(f"{owner}.connections must be new or pool, got {self.connections}")
        if self.form not in ("auto", "single", "plain"):
            raise SettingsError(f"{owner}.form must be auto, single or plain, got {self.form}")
        require_text(owner, {"topic": self.topic})
        require_source(owner, self.source)
        require_template(self.topic, any_topic=self.any_topic)
