"""The facts that writers and publishers give to hooks: frozen, one type per occurrence.

No fact holds a payload, a password or a token. The facts of a conflict name its entities, as
``TYPE/ID``, and no other fact does. Times ending in
``_ns`` are nanoseconds since the Unix epoch by this process's clock, unless said
otherwise; times ending in ``_s`` are seconds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec

AttemptOutcome = Literal["committed", "conflict", "in_doubt", "resolved", "failed"]
WriteStatus = Literal["committed", "duplicate", "failed", "unknown"]
RetryReason = Literal["conflict", "schema change", "outage"]
PublishResult = Literal[
    "delivered", "retry", "rejected", "unavailable", "deferred", "not_attempted"
]
PublishConsequence = Literal["retry", "dead_letter", "block"]


class DatabaseServer(msgspec.Struct, frozen=True):
    """The database of a writer, by its URL: host, port, and database with schema.

    `address` or `port` is None if the URL does not name it, or names several ports.
    """

    address: str | None
    port: int | None
    namespace: str


class WriteStarted(msgspec.Struct, frozen=True):
    """A call of `write` begins; its event is valid and will be sent next."""

    event_id: UUID
    event_name: str
    event_type: str
    topic: str
    entities: int
    server: DatabaseServer | None = None


class AttemptEnded(msgspec.Struct, frozen=True):
    """One run of the write transaction has ended.

    `outcome` is one of:

    - ``committed``
    - ``conflict``: not committed, and may be retried
    - ``in_doubt``: the connection was lost before the answer to the commit
    - ``resolved``: a query found out what an earlier attempt in doubt had done
    - ``failed``: not committed, because of any other error

    `oc_class` is Aurora DSQL's class of a conflict, ``OC000`` or ``OC001``. `entities` are those
    that the events of a conflict touch, as ``TYPE/ID``; empty for other outcomes.
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
    entities: Sequence[str] = ()


class BatchedWrite(msgspec.Struct, frozen=True):
    """One write of a transaction for several callers, and its trace context."""

    event_id: UUID
    carrier: Mapping[str, str]


class BatchEnded(msgspec.Struct, frozen=True):
    """One transaction for several callers has ended; `outcome` is as in `AttemptEnded`."""

    events: int
    started_ns: int
    ended_ns: int
    outcome: AttemptOutcome
    writes: Sequence[BatchedWrite]
    error: str | None = None
    sqlstate: str | None = None
    server: DatabaseServer | None = None


class RetryBudget(msgspec.Struct, frozen=True):
    """The limit that a failure counts against.

    For ``conflict`` and ``schema change``, `used` and `limit` are numbers of retries. For
    ``outage`` they are seconds since the first failure in a row. If `limit` is None, only the
    time of the call ends the retries. `left` is the rest of that time in seconds, or None if
    the call has no limit.
    """

    reason: RetryReason
    used: float
    limit: float | None
    left: float | None = None

    def __str__(self) -> str:
        if self.limit is None:
            return f"{self.reason} {self.used:g}, {self.left or 0.0:.1f} s left"
        if self.reason == "outage":
            return f"outage, {self.used:.1f} of {self.limit:g} s"
        return f"{self.reason}, {self.used:g} of {self.limit:g}"


class TransactionFailure(msgspec.Struct, frozen=True):
    """The reason why a transaction failed, and the budget that this counts against.

    `host` is the host and port of the database. `was_reached` is whether this process
    ever had a connection to it. `text` is the text of a conflict or of a lost server, without
    details; of any other error it is the name of its type.
    """

    host: str
    was_reached: bool
    error: str
    text: str
    sqlstate: str | None
    oc_class: str | None
    budget: RetryBudget


class RetryScheduled(msgspec.Struct, frozen=True):
    """A transaction failed, and its next attempt follows after `wait_s` seconds.

    `events` is the number of events that are tried again, and `event_id` is one of them. Before
    a call of `transact` has an event, `events` is 0 and `event_id` is the id of the call.
    `entities` are as in `AttemptEnded`.
    """

    event_id: UUID
    attempt: int
    wait_s: float
    failure: TransactionFailure
    events: int = 1
    entities: Sequence[str] = ()

    @property
    def conflict(self) -> bool:
        """Whether another transaction was faster, with the data or with the schema."""
        return self.failure.budget.reason != "outage"


class RetriesExhausted(msgspec.Struct, frozen=True):
    """The last allowed attempt of a transaction has failed.

    `events`, `event_id` and `entities` are as in `RetryScheduled`, of the events that are not
    tried again. `is_cut_short` is whether the deadline of the call left no time for a retry that
    the budget allows.
    """

    event_id: UUID
    attempts: int
    failure: TransactionFailure
    events: int = 1
    is_cut_short: bool = False
    entities: Sequence[str] = ()


class WriteExhausted(msgspec.Struct, frozen=True):
    """The last allowed attempt of a write has failed; the caller gets its error."""

    event_id: UUID
    attempts: int
    error: str
    sqlstate: str | None


class WriteEnded(msgspec.Struct, frozen=True):
    """A call of `write` has ended; `error` is the exception's type, None without one."""

    event_id: UUID
    status: WriteStatus
    attempts: int
    conflicts: int
    error: str | None = None
    duration_s: float = 0.0


class StoredCall(NamedTuple):
    """A call that has events in a transaction: its time so far, and what it met before."""

    duration_s: float
    waited_s: float
    has_conflicted: bool


class WritesStored(msgspec.Struct, frozen=True):
    """A transaction has stored these events, in an attempt of all their calls.

    For hooks that take calls, in place of `AttemptEnded` and `WriteEnded` of each event.
    """

    events: int
    started_ns: int
    ended_ns: int
    calls: Sequence[StoredCall]


class BacklogAge(msgspec.Struct, frozen=True):
    """How long the oldest message has waited in the outbox, as a writer or publisher read it.

    `seconds` is 0 and `shard` is None if no message waits. The log warns if
    `seconds` exceeds `limit`.
    """

    seconds: float
    shard: int | None
    limit: float


class BacklogUnread(msgspec.Struct, frozen=True):
    """A writer could not read the age of the backlog; its writes are not affected.

    `switched_off` means that its role lacks the right to read it, so this process
    stops asking.
    """

    error: str
    sqlstate: str | None
    switched_off: bool


class StuckCounts(msgspec.Struct, frozen=True):
    """How many messages cannot be delivered now, as a publisher counted them in the database.

    `dead_letters` were given up, `failures` wait after a failed attempt. Each count stops
    at 1,000.
    """

    dead_letters: int
    failures: int


class LifeJobs(msgspec.Struct, frozen=True):
    """What the jobs that change stored events have done, as a publisher read it in the database.

    `erased` and `forgotten` are numbers of events. `forgotten_s` is the time since the last
    complete forget job; None: there is none.
    """

    erased: int
    forgotten: int
    forgotten_s: float | None


class BrokerProbed(msgspec.Struct, frozen=True):
    """Whether the broker answered a probe; also while no message is there to be sent."""

    reached: bool


class PublishStarted(msgspec.Struct, frozen=True):
    """A message is handed to the sink for the `attempt`-th time.

    `carrier` is the trace context stored in the row. `committed_ns` is the time of
    the commit by the database's clock; `picked_up_ns` is the time of the read by
    ours. `destination` is the queue, topic or bus that takes the messages of all topics. It is
    empty if each topic is a destination of its own. `server_address` and `server_port` are
    the broker's.
    """

    event_id: UUID
    topic: str
    system: str
    carrier: Mapping[str, str]
    attempt: int
    committed_ns: int
    picked_up_ns: int
    payload_bytes: int
    destination: str = ""
    server_address: str | None = None
    server_port: int | None = None


class PublishEnded(msgspec.Struct, frozen=True):
    """The result of publishing one message; `unavailable` if the broker did not answer.

    `leads_to` is the consequence for a message that was not delivered:

    - ``retry``: the message is sent again
    - ``dead_letter``: the message becomes a dead letter
    - ``block``: the message and its subject wait for an operator
    """

    event_id: UUID
    topic: str
    result: PublishResult
    error: str | None = None
    attempt: int = 1
    leads_to: PublishConsequence | None = None


class CallStarted(msgspec.Struct, frozen=True):
    """The messages of one topic are handed to the sink in one call.

    `retries` of them had failed before. `committed_ns` is the time of the first commit of the
    others, and None if there are no others; it, `picked_up_ns` and the rest are as in
    `PublishStarted`.
    """

    topic: str
    system: str
    messages: int
    retries: int
    committed_ns: int | None
    picked_up_ns: int
    destination: str = ""
    server_address: str | None = None
    server_port: int | None = None


class CallEnded(msgspec.Struct, frozen=True):
    """A call of the sink has ended: how many messages of one topic had one result.

    `duration_s` is the time from the start of the call until the last of these results.
    """

    call: CallStarted
    result: PublishResult
    messages: int
    duration_s: float


class RelayProgress(msgspec.Struct, frozen=True):
    """The work of a publisher's relay since its last report, in numbers of messages.

    It reports several times a second while it works, and every few seconds as a sign of life.
    `failed` attempts failed, `dead` messages were given up, `skipped` ones were left out by the map
    of the publisher, and `deleted` rows left the outbox as delivered or skipped.
    `statements` is how many statements it ran; None if they were not counted. `held` subjects wait
    behind a failed row now. The `paused` topics take no messages: at most 50 are named, and there
    are `paused_more` others.
    `unowned` shards of its share cannot be sent now. `leases_kept` says whether the database
    answered its leases lately, `database_available` whether it answered the last statements.
    """

    read: int = 0
    delivered: int = 0
    deleted: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0
    statements: int | None = None
    held: int = 0
    sink_available: bool = True
    paused: Sequence[str] = ()
    paused_more: int = 0
    unowned: int = 0
    leases_kept: bool = True
    database_available: bool = True


class ShardsChanged(msgspec.Struct, frozen=True):
    """The shards of a publisher have changed: all that it owns now, and the difference."""

    owned: Collection[int]
    gained: Collection[int]
    lost: Collection[int]


class TransactionStarted(msgspec.Struct, frozen=True):
    """A transaction with `events` events will be sent next."""

    events: int


class PoolCounts(NamedTuple):
    """The connections of a writer now, and the calls that wait for one."""

    idle: int
    used: int
    waiting: int
    limit: int


class ConnectionPool(Protocol):
    """The connections of a writer."""

    def counts(self) -> PoolCounts:
        """Count them now. Any thread may ask."""
        ...


class TransactionEnded(msgspec.Struct, frozen=True):
    """A transaction of a writer has ended, once for all its events; also a run of `transact`.

    `error` and `sqlstate` are as in `AttemptEnded`. `pool` has the connection that it used.
    """

    started_ns: int
    ended_ns: int
    server: DatabaseServer
    pool: ConnectionPool
    error: str | None = None
    sqlstate: str | None = None


Fact = (
    WriteStarted
    | AttemptEnded
    | BatchEnded
    | RetryScheduled
    | RetriesExhausted
    | WriteExhausted
    | WriteEnded
    | WritesStored
    | BacklogAge
    | BacklogUnread
    | StuckCounts
    | LifeJobs
    | BrokerProbed
    | PublishStarted
    | PublishEnded
    | CallStarted
    | CallEnded
    | RelayProgress
    | ShardsChanged
    | TransactionStarted
    | TransactionEnded
)
