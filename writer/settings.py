"""The settings of a writer and their defaults."""

import os
from dataclasses import dataclass, field
from typing import Final, Self

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import (
    DEFAULT_SOURCE,
    require_not_negative,
    require_positive,
    require_source,
    require_text,
    require_whole,
)

from .topic_template import require_template

_MAX_OUTAGE: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """Settings of `Writer` and `AsyncWriter`.

    The retries of a call: conflicts, changes of the schema (OC001) and an outage share its
    `timeout`. Each also counts against its own budget, and has its own waits: 0.1 s, doubled for
    each later one up to 2 s, with a random share of up to as much again within these 2 s. `origin`
    makes other settings. Raises `SettingsError` for an invalid value.

        >>> settings = WriterSettings(max_retries=5, topic="cars.{event_type}")
        >>> with Writer(database, settings) as writer:
        ...     writer.write(event).status
        'committed'
    """

    timeout: float | None = 30.0
    """Seconds that a call may take, unless it has its own `timeout=`. In `write_many` it is the
    limit of each transaction. None: no limit; then `max_retries` needs a number, changes of the
    schema (OC001) are retried ten times, and the waits have no random share, so that the longest
    time of a call is known. Lower it if your callers wait for less."""

    max_retries: int | None = None
    """Retries of a conflict with data. None: until the time of the call is over. Set it if a call
    should rather fail early."""

    max_outage: float = _MAX_OUTAGE
    """Seconds during which attempts continue while the database cannot be reached. Raise it, and
    `timeout` with it, for longer failovers."""

    max_connections: int = 10
    """The most connections that are open or being opened. The `timeout` of a call ends its wait,
    not the opening, which serves the next call. Raise it if calls wait for a connection. The
    database must allow the sum of all processes."""

    coalesce: int = 0
    """Group commit: the number of lanes of `AsyncWriter.write`. Calls made while a transaction of
    their lane is in flight share the next one, at most 128 of them. If the database refuses a
    transaction, it is halved until the event at fault fails alone. While 10,000 calls wait for
    their transaction, further calls wait to be queued. 0: one transaction per event. Set it, for
    example to 4, if many calls of a process write one entity."""

    topic: str = "events.{event_type}"
    """The template of the topic, for events without their own. It has the fields
    ``{event_type}``, ``{event_name}`` and ``{entity_type}`` (of the subject). A topic has 1 to
    249 of ``A-Z a-z 0-9 . _ -`` and no empty part between dots, and does not begin with
    ``_INBOX``, ``_R_`` or ``_GR_``, which NATS uses itself."""

    source: str = DEFAULT_SOURCE
    """The CloudEvents source of every message: 1 to 128 visible characters of ASCII. Consumers
    distinguish outboxes by it, so set it if they read more than one."""

    backlog_check: float | None = field(  # each of Lambda's many short processes would ask
        default_factory=lambda: None if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else 30.0
    )
    """The backlog alarm: at most every so many seconds, one write of the process reads the age of
    the oldest message after its commit. That write returns one round trip later, and at most 1 s
    later. None: never, the default in AWS Lambda."""

    backlog_warn: float = 60.0
    """Seconds. Above this age of the oldest message the log has a warning."""

    doorbell: bool = False
    """Whether the writer rings the doorbell of the publishers after each commit, on PostgreSQL: by
    NOTIFY, on an idle connection, at most every 10 ms. Those with ``doorbell`` then read at once.
    No call waits for a ring or fails by it. `Writer.ring` rings for what you commit yourself."""

    @classmethod
    def origin(cls) -> Self:
        """Return the settings with the schedule of the system that this library comes from.

        That is three retries, after exactly 100, 200 and 400 ms, and no time limit. They suit
        callers that rarely conflict. If many write one entity, some fail early. Change the other
        settings by `dataclasses.replace`.

            >>> settings = WriterSettings.origin()
            >>> settings.max_retries, settings.timeout
            (3, None)
        """
        return cls(timeout=None, max_retries=3)

    def __post_init__(self) -> None:
        """Raise `SettingsError` for an invalid value."""
        owner = "WriterSettings"
        require_positive(owner, {"max_connections": self.max_connections})
        counts = {"max_connections": self.max_connections, "coalesce": self.coalesce}
        if self.max_retries is not None:
            counts["max_retries"] = self.max_retries
        require_not_negative(
            owner,
            {**counts, "max_outage": self.max_outage, "backlog_warn": self.backlog_warn},
        )
        require_whole(owner, counts)
        optional = {
            "timeout": self.timeout,
            "backlog_check": self.backlog_check,
        }
        require_positive(owner, {k: v for k, v in optional.items() if v is not None})
        if self.timeout is None and self.max_retries is None:
            raise SettingsError(
                f"{owner}(timeout=None) needs max_retries: else nothing would end the retries of "
                "a conflict"
            )
        # The default of max_outage may be longer: a short timeout alone is a fine setting.
        if self.timeout is not None and self.max_outage > max(self.timeout, _MAX_OUTAGE):
            raise SettingsError(
                f"{owner}.max_outage={self.max_outage:g} is over timeout={self.timeout:g}, which "
                "ends each call before: give a timeout of at least that, or None"
            )
        require_text(owner, {"topic": self.topic})
        require_source(owner, self.source)
        require_template(self.topic)
