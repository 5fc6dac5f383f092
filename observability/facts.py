"""What the core tells its hooks: frozen facts, one type an occurrence.

No fact holds a payload, a password, an entity id or a token. Times ending in
``_ns`` are nanoseconds since the Unix epoch on this process's clock; waits
ending in ``_s`` are seconds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal
from uuid import UUID

import msgspec

AttemptOutcome = Literal["committed", "conflict", "in_doubt", "resolved", "failed"]
WriteStatus = Literal["committed", "duplicate", "failed", "unknown"]
PublishResult = Literal["delivered", "retry", "rejected", "unavailable", "not_attempted"]


class WriteStarted(msgspec.Struct, frozen=True):
    """One call of `write` begins; its event is valid and about to be sent."""

    event_id: UUID
    event_name: str
    event_type: str
    topic: str
    entities: int


class AttemptEnded(msgspec.Struct, frozen=True):
    """One run of the write transaction is over.

    `outcome` is ``committed``, ``conflict`` (certainly not committed, may be
    retried), ``in_doubt`` (the connection died and took the answer along),
    ``resolved`` (a look-up found what an earlier attempt in doubt had done) or
    ``failed`` (certainly not committed, another error). `oc_class` is the
    database's own name of a conflict, ``OC000`` or ``OC001``.
    """

    event_id: UUID
    number: int
    waited_s: float
    started_ns: int
    ended_ns: int
    outcome: AttemptOutcome
    error: str | None = None
    sqlstate: str | None = None
    oc_class: str | None = None


class BatchEnded(msgspec.Struct, frozen=True):
    """One transaction for several callers is over; `outcome` is what its attempts say.

    `writes` are the trace contexts of its events' writes.
    """

    events: int
    started_ns: int
    ended_ns: int
    outcome: AttemptOutcome
    writes: Sequence[Mapping[str, str]]
    error: str | None = None
    sqlstate: str | None = None


class RetryScheduled(msgspec.Struct, frozen=True):
    """An attempt failed and another follows after `wait_s` seconds."""

    event_id: UUID
    attempt: int
    max_retries: int
    wait_s: float
    error: str
    sqlstate: str | None
    oc_class: str | None
    conflict: bool


class WriteExhausted(msgspec.Struct, frozen=True):
    """The last attempt allowed has failed; its error goes to the caller."""

    event_id: UUID
    attempts: int
    max_retries: int
    error: str
    sqlstate: str | None


class WriteEnded(msgspec.Struct, frozen=True):
    """One call of `write` is over; `error` names the exception's type, if any."""

    event_id: UUID
    status: WriteStatus
    attempts: int
    conflicts: int
    error: str | None = None


class BacklogAge(msgspec.Struct, frozen=True):
    """A writer saw how long the oldest message has waited in the outbox.

    `seconds` is 0 and `shard` None when nothing waits. Over `limit` seconds the
    log warns.
    """

    seconds: float
    shard: int | None
    limit: float


class BacklogUnread(msgspec.Struct, frozen=True):
    """A writer could not see how old the backlog is; its writes are not concerned.

    `switched_off`: its role may not read it, so nobody in this process asks again.
    """

    error: str
    sqlstate: str | None
    switched_off: bool


class PublishStarted(msgspec.Struct, frozen=True):
    """A message goes to the broker for the `attempt`-th time.

    `carrier` is the trace context that came with the row. `committed_ns` is
    the database's time of the commit, `picked_up_ns` ours of the read.
    """

    event_id: UUID
    topic: str
    system: str
    carrier: Mapping[str, str]
    attempt: int
    committed_ns: int
    picked_up_ns: int
    payload_bytes: int


class PublishEnded(msgspec.Struct, frozen=True):
    """The broker's answer to one message, or that there was none."""

    event_id: UUID
    topic: str
    result: PublishResult
    error: str | None = None
    attempt: int = 1


class RoundEnded(msgspec.Struct, frozen=True):
    """One relay round: rows read, delivered, failed, died, held back and deleted.

    `statements` is how many it ran; None for what the publisher did not count.
    """

    read: int
    delivered: int
    failed: int
    dead: int
    held: int
    sink_available: bool
    deleted: int | None = None
    statements: int | None = None


class ShardsChanged(msgspec.Struct, frozen=True):
    """A publisher relays other shards than before: all it owns now, and the difference."""

    owned: Collection[int]
    gained: Collection[int]
    lost: Collection[int]


class TransactionStarted(msgspec.Struct, frozen=True):
    """A transaction with so many events is about to be sent."""

    events: int


Fact = (
    WriteStarted
    | AttemptEnded
    | BatchEnded
    | RetryScheduled
    | WriteExhausted
    | WriteEnded
    | BacklogAge
    | BacklogUnread
    | PublishStarted
    | PublishEnded
    | RoundEnded
    | ShardsChanged
    | TransactionStarted
)
