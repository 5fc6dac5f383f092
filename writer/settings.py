"""How a writer behaves, with the defaults that its users may rely on."""

import os
import string
from dataclasses import dataclass, field
from typing import Literal

from dsql_outbox.outbox import (
    DEFAULT_SOURCE,
    SettingsError,
    require_not_negative,
    require_positive,
)

_TOPIC_FIELDS = {"event_type", "event_name", "entity_type"}


def _default_backlog_check() -> float | None:
    """None in a Lambda function: its many short processes would each ask."""
    return None if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else 30.0


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """Settings of `Writer` and `AsyncWriter`; times are seconds.

    A conflict is retried `max_retries` times (so there are at most
    ``max_retries + 1`` attempts) after `base`, 2 `base`, 4 `base`, .. and never
    more than `cap`; `jitter` adds up to that share on top. While the database
    cannot be reached, attempts go on for `max_outage`.

    `connections` says what a retry runs on: ``new`` gives the failed connection
    up before the wait and opens another after it; ``pool`` keeps a healthy one.
    At most `max_connections` are open. One that was idle for more than `max_idle`
    (None: for however long) is replaced before use, which is no attempt.

    `form` says how a write is put: ``single`` is one statement, ``plain`` one
    transaction of statements without data-modifying CTEs, sent at once; ``auto``
    asks the database, at the writer's first use, whether it takes the single one.

    `coalesce` is how many lanes `AsyncWriter.write` has for group commit, 0 for a
    transaction an event: calls made while a lane's transaction is in flight share
    the next one, at most `max_batch` of them. An event that the database cannot
    take fails alone: its transaction is halved until it is found. While `max_queued` calls wait for
    their transaction, others wait to be let in.

    `topic` may use {event_type}, {event_name} and {entity_type} (the subject's).
    `source` is the CloudEvents source of every message.

    Every `backlog_check` seconds at most (None: never, the default in AWS Lambda)
    one write of the process also looks how old the outbox's oldest message is,
    after it has committed: that write returns one round trip later, one second
    later at most. Over `backlog_warn` seconds the log warns.

    Raises `SettingsError` for a value that breaks a rule.
    """

    max_retries: int = 3
    base: float = 0.1
    cap: float = 2.0
    jitter: float = 0.25
    max_outage: float = 10.0
    connections: Literal["new", "pool"] = "new"
    max_connections: int = 10
    max_idle: float | None = None
    form: Literal["auto", "single", "plain"] = "auto"
    coalesce: int = 0
    max_batch: int = 128
    max_queued: int = 10_000
    topic: str = "events.{event_type}"
    source: str = DEFAULT_SOURCE
    backlog_check: float | None = field(default_factory=_default_backlog_check)
    backlog_warn: float = 60.0

    def __post_init__(self) -> None:
        """Refuse values that break a rule."""
        owner = "WriterSettings"
        require_positive(
            owner,
            {
                "base": self.base,
                "cap": self.cap,
                "max_connections": self.max_connections,
                "max_batch": self.max_batch,
                "max_queued": self.max_queued,
            },
        )
        require_not_negative(
            owner,
            {
                "max_retries": self.max_retries,
                "jitter": self.jitter,
                "max_outage": self.max_outage,
                "coalesce": self.coalesce,
                "backlog_warn": self.backlog_warn,
            },
        )
        optional = {"max_idle": self.max_idle, "backlog_check": self.backlog_check}
        require_positive(owner, {k: v for k, v in optional.items() if v is not None})
        if self.connections not in {"new", "pool"}:
            raise SettingsError(f"{owner}.connections must be new or pool, got {self.connections}")
        if self.form not in {"auto", "single", "plain"}:
            raise SettingsError(f"{owner}.form must be auto, single or plain, got {self.form}")
        if not self.source:
            raise SettingsError(f"{owner}.source must not be empty")
        _check_topic(self.topic)


def _check_topic(topic: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(topic) if name is not None}
    except ValueError as error:
        raise SettingsError(f"WriterSettings.topic {topic!r} is no template: {error}") from None
    if unknown := fields - _TOPIC_FIELDS:
        raise SettingsError(
            f"WriterSettings.topic has no field {', '.join(sorted(unknown)) or '{}'} "
            f"(known: {', '.join(sorted(_TOPIC_FIELDS))})"
        )
