"""Every metric: its name, unit, description, and the values of its attribute.

A metric of ours has at most one attribute, whose values come from a short list. So the
number of series is bounded, whatever events are written. The types of entities are limited to
`MOST_TYPES`. Attributes have the
same names as in spans. Those of OpenTelemetry's conventions have what the conventions ask for.
"""

from typing import Final, NamedTuple

from . import attributes as names

TARGET: Final = "outbox.target"
"""The target of a publisher; the default target has no such attribute."""

SHARDS_CHANGE: Final = "outbox.shards.change"
"""Whether a shard was ``gained`` or ``lost``."""

ENTITY_TYPE: Final = "outbox.entity.type"
"""The type of an entity that an attempt touched."""

WRITE_CONFLICTED: Final = "outbox.write.conflicted"
"""Whether the write met a conflict: ``yes`` or ``no``.

Writes with a conflict also wait, so they are far slower and measured apart.
"""


MOST_TYPES: Final = 64
"""The number of types of entities that a process counts apart; the others are ``other``."""


class Metric(NamedTuple):
    """The definition of one instrument; `values` are all values that `attribute` can have."""

    name: str
    unit: str
    description: str
    attribute: str = ""
    values: tuple[str, ...] = ()


_STATUSES: Final = ("committed", "duplicate", "failed", "unknown")
_RESULTS: Final = ("delivered", "retry", "rejected", "unavailable", "deferred", "not_attempted")

WRITES: Final = Metric(
    "outbox.write.calls",
    "{call}",
    "Ended calls of write, by status.",
    names.WRITE_STATUS,
    _STATUSES,
)
FAILED_ATTEMPTS: Final = Metric(
    "outbox.write.attempts.failed",
    "{attempt}",
    "Runs of a write's transaction that did not store it, as far as the writer knows, by outcome.",
    names.ATTEMPT_OUTCOME,
    ("conflict", "in_doubt", "failed"),
)
CONFLICTS: Final = Metric(
    "outbox.write.conflicts",
    "{attempt}",
    "Runs that ended in a conflict, by the database's class of it.",
    names.ATTEMPT_OC_CLASS,
    ("OC000", "OC001", "other"),
)
ENTITY_CONFLICTS: Final = Metric(
    "outbox.write.entity.conflicts",
    "{attempt}",
    "Runs that ended in a conflict with data, once per type of the entities that they touched.",
    ENTITY_TYPE,
)
EXHAUSTED: Final = Metric(
    "outbox.write.exhausted", "{call}", "Calls of write whose retries ran out."
)
WAITED: Final = Metric("outbox.write.waited", "s", "Time that writes waited between two runs.")
WRITE_DURATION: Final = Metric(
    "outbox.write.duration",
    "s",
    "Duration of a call of write with its waits, by whether it met a conflict.",
    WRITE_CONFLICTED,
    ("no", "yes"),
)

BACKLOG_AGE: Final = Metric(
    "outbox.backlog.age", "s", "Age of the oldest message at the last read."
)

DEAD_LETTERS_NOW: Final = Metric(
    "outbox.dead_letters", "{message}", "Dead letters in the database now; the count stops at 1000."
)
FAILURES_NOW: Final = Metric(
    "outbox.failures",
    "{message}",
    "Messages that wait after a failed attempt now; the count stops at 1000.",
)

FORGET_AGE: Final = Metric("outbox.forget.age", "s", "Time since the last complete forget job.")
FORGOTTEN_EVENTS: Final = Metric("outbox.events.forgotten", "{event}", "Events ever forgotten.")
ERASED_EVENTS: Final = Metric(
    "outbox.events.erased", "{event}", "Events in which content was ever erased."
)

MESSAGES: Final = Metric(
    "outbox.publish.messages",
    "{message}",
    "Sends of a message to the broker, by result.",
    names.PUBLISH_RESULT,
    _RESULTS,
)
RETRIES: Final = Metric(
    "outbox.publish.retries", "{message}", "Sends of a message that had failed before."
)
CALL_DURATION: Final = Metric(
    "outbox.publish.call.duration",
    "s",
    "Time from the start of a call of the sink to its last answer, once per topic and result.",
    names.PUBLISH_RESULT,
    _RESULTS,
)
WAIT_DURATION: Final = Metric(
    "outbox.publish.wait.duration",
    "s",
    "Time from the commit of the oldest message of a call until it is first read, once per topic.",
)
STATEMENTS: Final = Metric(
    "outbox.relay.statements", "{statement}", "Statements that the relay ran."
)
ROWS_READ: Final = Metric("outbox.relay.rows.read", "{row}", "Outbox rows that came into memory.")
ROWS_DELIVERED: Final = Metric(
    "outbox.relay.rows.delivered", "{row}", "Outbox rows that the broker acknowledged."
)
ROWS_SKIPPED: Final = Metric(
    "outbox.relay.rows.skipped", "{row}", "Outbox rows that the map of the publisher left out."
)
ROWS_DELETED: Final = Metric(
    "outbox.relay.rows.deleted",
    "{row}",
    "Outbox rows deleted because they were delivered or skipped.",
)
SUBJECTS_HELD: Final = Metric(
    "outbox.relay.subjects.held", "{subject}", "Subjects that wait behind a failed row."
)
TOPICS_PAUSED: Final = Metric(
    "outbox.relay.topics.paused", "{topic}", "Topics that take no messages now."
)
DEAD_LETTERS: Final = Metric(
    "outbox.relay.dead_letters", "{message}", "Messages that the publisher gave up on."
)
SINK_AVAILABLE: Final = Metric(
    "outbox.relay.sink.available",
    "{sink}",
    "1 if the broker can be reached, by the last send and the last probe, else 0.",
)
SHARDS_OWNED: Final = Metric(
    "outbox.relay.shards.owned", "{shard}", "Shards that this publisher relays."
)
SHARDS_CHANGES: Final = Metric(
    "outbox.relay.shards.changes",
    "{shard}",
    "Shards that this publisher gained or lost.",
    SHARDS_CHANGE,
    ("gained", "lost"),
)


class Standard(NamedTuple):
    """A metric of OpenTelemetry's conventions, and the one of ours that is recorded beside it.

    `buckets` are those that the conventions advise.
    """

    name: str
    unit: str
    description: str
    beside: str = ""
    buckets: tuple[float, ...] = ()


DB_DURATION: Final = Standard(
    "db.client.operation.duration",
    "s",
    "Duration of database client operations.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10),
)
MESSAGING_DURATION: Final = Standard(
    "messaging.client.operation.duration",
    "s",
    "Duration of messaging operation initiated by a producer or consumer client.",
    CALL_DURATION.name,
    (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
)
MESSAGING_SENT: Final = Standard(
    "messaging.client.sent.messages",
    "{message}",
    "Number of messages producer attempted to send to the broker.",
    MESSAGES.name,
)
POOL_COUNT: Final = Standard(
    "db.client.connection.count",
    "{connection}",
    "The number of connections that are currently in state described by the `state` attribute.",
)
POOL_MAX: Final = Standard(
    "db.client.connection.max", "{connection}", "The maximum number of open connections allowed."
)
POOL_PENDING: Final = Standard(
    "db.client.connection.pending_requests",
    "{request}",
    "The number of current pending requests for an open connection.",
)

POOL_NAME: Final = "db.client.connection.pool.name"
"""The server and the database of the writers whose connections are counted together."""

POOL_STATE: Final = "db.client.connection.state"
"""``idle`` or ``used``."""

WRITE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds. A write without a conflict takes milliseconds, one with retries up to some seconds."""

WAIT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Seconds. The range reaches from a publisher that keeps up to one that was down for 30 minutes."""
