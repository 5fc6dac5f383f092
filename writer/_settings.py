"""How a writer behaves, with the defaults that its users may rely on."""

import string
from dataclasses import dataclass
from typing import Literal

from dsql_outbox.outbox import SettingsError, require_not_negative, require_positive

_TOPIC_FIELDS = {"event_type", "event_name", "entity_type"}


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """Settings of `Writer` and `AsyncWriter`; times are seconds.

    A conflict is retried `max_retries` times (so there are at most
    ``max_retries + 1`` attempts) after `base`, 2 `base`, 4 `base`, .. and never
    more than `cap`; `jitter` adds up to that share on top. While the database
    cannot be reached, attempts go on for `max_outage`.

    `connections` says what a retry runs on: ``new`` gives the failed connection
    up before the wait and opens another after it; ``pool`` keeps a healthy one.
    At most `max_connections` are open.

    `topic` may use {event_type}, {event_name} and {entity_type} (the subject's).
    `source` is the CloudEvents source of every message.

    Raises `SettingsError` for a value that breaks a rule.
    """

    max_retries: int = 3
    base: float = 0.1
    cap: float = 2.0
    jitter: float = 0.25
    max_outage: float = 10.0
    connections: Literal["new", "pool"] = "new"
    max_connections: int = 10
    topic: str = "events.{event_type}"
    source: str = "/dsql-outbox"

    def __post_init__(self) -> None:
        """Refuse values that break a rule."""
        owner = "WriterSettings"
        require_positive(
            owner, {"base": self.base, "cap": self.cap, "max_connections": self.max_connections}
        )
        require_not_negative(
            owner,
            {
                "max_retries": self.max_retries,
                "jitter": self.jitter,
                "max_outage": self.max_outage,
            },
        )
        if self.connections not in {"new", "pool"}:
            raise SettingsError(f"{owner}.connections must be new or pool, got {self.connections}")
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
