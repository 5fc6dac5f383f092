"""The state of the outbox: its backlog, its failures and its publishers."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
import psycopg

from dsql_outbox.outbox.failure import is_unreachable
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.outbox.settings import DEFAULT_TARGET, TARGET_SHARDS
from dsql_outbox.schema.liveness import is_alive
from dsql_outbox.schema.refused_topics import RefusedTopic, parse_refused
from dsql_outbox.schema.session import Session
from dsql_outbox.schema.target_rows import TargetKind, TargetState

from .fills import FillProgress, fill_progress
from .obstacles import NONE, Obstacles, read_obstacles
from .replay import rows_estimate
from .tool import Operator
from .topic_pauses import PausedTopic, read_paused

T = TypeVar("T")

_LIMIT: Final = 1_000
_SHARD_LIMIT: Final = 500
_MOST: Final = 100_000  # per shard, and of failures, in one long count
_MOST_DEAD: Final = 1_000_000
_SHOWN: Final = 5
LATE: Final = 60.0
"""Seconds that the oldest message may wait although nothing else is wrong."""
SLOW: Final = 20.0
"""Seconds that it may wait before its subject is looked at: a long queue is named before `LATE`."""
_HOT: Final = 10
_LOOKED: Final = 1_000  # messages of the shard with the oldest message
_WINDOW: Final = 5  # looks per rate: PostgreSQL updates its counters only now and then
_PUBLISHERS: Final = 100
_TOPICS: Final = 100


_NO_LEASE: Final = "the shard has no lease row; see dsql-outbox schema check"
_NO_POSITION: Final = "the position is below 1; the shard's publisher makes it a dead letter"


class Bounded(msgspec.Struct, frozen=True):
    """A number of rows that is counted up to a limit; `more` says that there are more."""

    count: int
    more: bool


class FailedMessage(msgspec.Struct, frozen=True, rename="camel"):
    """A message that waits after a failure; `retry_seconds` is None if it is blocked."""

    event_id: UUID
    shard: int
    position: int
    attempts: int
    retry_seconds: float | None
    error: str


class FailureCounts(msgspec.Struct, frozen=True):
    """The number of failed messages, and the ones with the most attempts in `worst`."""

    count: int
    more: bool
    blocked: int
    worst: tuple[FailedMessage, ...]


class Shard(msgspec.Struct, frozen=True, rename="camel"):
    """One shard.

    `oldest_seconds` is None if no message waits, `owner` is None if no publisher
    relays it. `lease_seconds` is the time left, negative once the lease has expired.
    """

    shard: int
    oldest_seconds: float | None
    owner: str | None
    epoch: int
    lease_seconds: float | None


class Seen(msgspec.Struct, frozen=True, rename="camel"):
    """A publisher that announced itself `seen_seconds` ago; alive if that is within its lease.

    `lease_seconds` is how long its leases last. `paused` are the topics that it has paused by
    itself, because the broker refuses them or its map fails, at most 50, and there are
    `paused_more` others. `target` is set if it is another than the
    default one. It has waited for its broker for `waiting_seconds`, and takes no shards meanwhile;
    None: it reaches its broker.
    """

    owner: str
    alive: bool
    seen_seconds: float
    lease_seconds: float
    paused: tuple[RefusedTopic, ...] = ()
    target: str | msgspec.UnsetType = msgspec.UNSET
    waiting_seconds: float | None = None
    paused_more: int = 0

    @property
    def relays(self) -> bool:
        """Whether it is alive and reaches its broker."""
        return self.alive and self.waiting_seconds is None


class Stranded(msgspec.Struct, frozen=True, rename="camel"):
    """Messages that no publisher can relay, and the reason.

    `position` is the position of the first one; None means the whole shard.
    """

    shard: int
    position: int | None
    reason: str


class HotSubject(msgspec.Struct, frozen=True, rename="camel"):
    """The subject of the oldest message: `messages` of the first `looked` ones of its shard."""

    key: str
    shard: int
    messages: int
    looked: int

    @property
    def is_long(self) -> bool:
        """Whether its queue is the reason why the messages of its shard wait."""
        return self.messages >= _HOT and 2 * self.messages > self.looked


class Counters(NamedTuple):
    """Rows inserted into the outbox and deleted from it since the statistics began."""

    put: int
    taken: int


class Rates(msgspec.Struct, frozen=True, rename="camel"):
    """Rows per second inserted into the outbox and deleted from it."""

    in_per_second: float
    out_per_second: float


class Meter:
    """Computes rates from successive counters."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Counters]] = deque(maxlen=_WINDOW)

    def rates(self, counters: Counters | None, now: float) -> Rates | None:
        """The rates over the last calls; None without counters, and at the first call.

        `now` is in seconds on a monotonic clock.
        """
        if counters is None or self._went_back(counters):
            self._seen.clear()
        if counters is None:
            return None
        self._seen.append((now, counters))
        since, first = self._seen[0]
        if now <= since:
            return None
        put, taken = counters.put - first.put, counters.taken - first.taken
        return Rates(round(put / (now - since), 1), round(taken / (now - since), 1))

    def _went_back(self, counters: Counters) -> bool:
        """Whether the statistics were reset, as after a crash of the database."""
        if not self._seen:
            return False
        _, last = self._seen[-1]
        return counters.put < last.put or counters.taken < last.taken


class TargetStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The state of one target.

    `first_shard` is the first of its 1,024 shards. `fill` says how far it is filled with earlier
    events; None: it gets none.
    """

    name: str
    kind: TargetKind
    state: TargetState
    first_shard: int
    waiting: Bounded
    oldest_seconds: float | None
    failing: Bounded
    dead_letters: Bounded
    fill: FillProgress | None = None


class JobsStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What the jobs that change stored events have done, in events.

    Those saved before `forgotten_before` may be forgotten (None: nothing ever was). The last
    complete forget job ended `forgotten_seconds` ago. `running` is the verb of the job that runs.
    """

    erased: int
    forgotten: int
    forgotten_before: datetime | None
    forgotten_seconds: float | None
    running: str | None


class Status(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The state of the outbox. All times are seconds, by the database's clock.

    `paused_topics` are those that an operator has paused, the first 100 by name of each target.
    `targets` are all that are not dropped; empty if there is none but the default one. `jobs`
    is None if none has changed stored events. The first dead letter died `dead_seconds` ago,
    of `dead_error`.
    `obstacles` are looked for while a target lacks a living publisher, and `hot_subject` while the
    oldest message waits for longer than 20 s.
    """

    schema: str
    waiting: Bounded
    oldest_seconds: float | None
    failures: FailureCounts
    dead_letters: Bounded
    shards: tuple[Shard, ...]
    publishers: tuple[Seen, ...]
    stranded: tuple[Stranded, ...]
    paused_topics: tuple[PausedTopic, ...]
    targets: tuple[TargetStatus, ...] = ()
    jobs: JobsStatus | None = None
    dead_seconds: float | None = None
    dead_error: str | None = None
    obstacles: Obstacles = NONE
    hot_subject: HotSubject | None = None

    def target_of(self, shard: int) -> str | None:
        """The target of a shard; None if there is none but the default one."""
        first = shard - shard % TARGET_SHARDS
        return next((each.name for each in self.targets if each.first_shard == first), None)


class Counts(NamedTuple):
    """Long counts: of the waiting messages of each shard, of failures and of dead letters."""

    backlogs: Mapping[int, Bounded]
    failures: FailureCounts
    dead_letters: Bounded


class StatusReader(Operator):
    """Reads the state of the outbox.

    Creating it does no I/O. Leave it by `async with` or `close`. Its methods
    run a few statements, each cheap however long the backlog is. They raise
    `SchemaError` if the tables are missing or outdated, and the driver's errors.
    """

    async def read(self) -> Status:
        """Read the state of the outbox as it is now."""
        found = await self._read("status_shards", _shard)
        shards = tuple(shard for shard, _ in found)
        ages = [shard.oldest_seconds for shard in shards if shard.oldest_seconds is not None]
        orphaned = await self._rows("shards_orphaned")
        targets = await self._read("status_targets", _TargetRow, limit=_LIMIT)
        topics: list[PausedTopic] = []
        for target in targets:
            topics += await read_paused(self._session, None, _TOPICS, target.name)
        is_filling = any(target.state == "filling" for target in targets)
        total = await rows_estimate(self._session, "business_events") if is_filling else None
        jobs = await self._read("status_jobs", JobsStatus)
        ((dead, dead_seconds, dead_error),) = await self._rows("status_dead", limit=_LIMIT)
        publishers = await read_publishers(self._session)
        # A user who has added no target reads nothing of targets.
        is_plain = [row.name for row in targets] == [DEFAULT_TARGET]
        return Status(
            schema=self._session.schema,
            waiting=await self.read_waiting(),
            oldest_seconds=max(ages, default=None),
            failures=await self._read_failures(_LIMIT, shown=_SHOWN),
            dead_letters=_bounded(dead),
            dead_seconds=_seconds(dead_seconds),
            dead_error=dead_error,
            shards=shards,
            publishers=publishers,
            stranded=(
                *(Stranded(shard, None, _NO_LEASE) for (shard,) in orphaned),
                *(
                    Stranded(shard.shard, position, _NO_POSITION)
                    for shard, position in found
                    if position is not None and position < 1
                ),
            ),
            paused_topics=tuple(topics),
            targets=() if is_plain else tuple(row.status(total) for row in targets),
            jobs=jobs[0] if jobs else None,
            obstacles=await find_obstacles(
                self._session,
                publishers,
                [each.name for each in targets if each.state == "running"],
            ),
            hot_subject=await self._hot_subject(shards),
        )

    async def _hot_subject(self, shards: Sequence[Shard]) -> HotSubject | None:
        """The subject of the oldest message, if that is late."""
        oldest = max(shards, key=lambda each: each.oldest_seconds or 0.0, default=None)
        if oldest is None or (oldest.oldest_seconds or 0.0) <= SLOW:
            return None
        parameters = {"shard": oldest.shard}
        rows = await self._session.fetch_rows("status_hot_subject", parameters, limit=_LOOKED)
        for kind, name, messages, looked in rows:
            return HotSubject(subject_key(kind, name), oldest.shard, messages, looked)
        return None  # it has gone meanwhile

    async def read_waiting(self) -> Bounded:
        """Count the waiting messages, up to 1,000, in one statement."""
        return _bounded((await self._rows("status_waiting", limit=_LIMIT))[0][0])

    async def read_backlogs(self) -> dict[int, Bounded]:
        """Count the waiting messages of each shard, up to 500 per shard, in one statement."""
        rows = await self._rows("status_backlogs", limit=_SHARD_LIMIT)
        return {shard: _bounded(found, _SHARD_LIMIT) for shard, found in rows}

    async def read_publishers(self) -> tuple[Seen, ...]:
        """The publishers that have announced themselves, the last one first, at most 100."""
        return await read_publishers(self._session)

    async def read_counts(self) -> Counts:
        """Count up to 100,000 messages of each shard and failures, and 1,000,000 dead letters.

        On PostgreSQL a million takes 0.1 s. So do not call it at each look.
        """
        rows = await self._rows("status_backlogs", limit=_MOST)
        ((dead, *_),) = await self._rows("status_dead", limit=_MOST_DEAD)
        return Counts(
            {shard: _bounded(found, _MOST) for shard, found in rows},
            await self._read_failures(_MOST, shown=1),
            _bounded(dead, _MOST_DEAD),
        )

    async def read_counters(self) -> Counters | None:
        """Read the row counters, from which rates are computed.

        None if the database keeps none, as Aurora DSQL.
        """
        try:
            (counters,) = await self._read("status_counters", Counters)
        except psycopg.Error as error:
            if is_unreachable(error):
                raise
            return None
        return counters

    async def _read(self, name: str, kind: Callable[..., T], **literals: int) -> Sequence[T]:
        return await self._session.fetch(name, kind, {}, **literals)

    async def _read_failures(self, limit: int, *, shown: int) -> FailureCounts:
        rows = await self._read("status_failures", _failure, limit=limit, shown=shown)
        worst, numbers, blocked = zip(*rows, strict=True) if rows else ((), (0,), (0,))
        number = _bounded(numbers[0], limit)
        return FailureCounts(number.count, number.more, blocked[0], worst)

    async def _rows(self, name: str, **literals: int) -> Sequence[Sequence[Any]]:
        return await self._session.fetch_rows(name, {}, **literals)


async def find_obstacles(
    session: Session, publishers: Sequence[Seen], targets: Sequence[str]
) -> Obstacles:
    """What stops publishers, if one of the targets has none that is alive."""
    alive = {each.target or DEFAULT_TARGET for each in publishers if each.alive}
    return NONE if alive.issuperset(targets) else await read_obstacles(session)


async def read_publishers(session: Session) -> tuple[Seen, ...]:
    """The publishers that have announced themselves, the last one first, at most 100."""
    return tuple(await session.fetch("status_publishers", _seen, {}, shown=_PUBLISHERS))


def _seen(  # noqa: PLR0913 - one argument per column
    *,
    owner: str,
    seen: float,
    lease_seconds: float,
    paused: str,
    target: str,
    waiting: float | None,
) -> Seen:
    """The publisher of a row of ``status_publishers``."""
    topics, more = parse_refused(paused, seen)
    return Seen(
        owner,
        is_alive(seen, lease_seconds),
        round(seen, 3),
        lease_seconds,
        tuple(topics),
        msgspec.UNSET if target == DEFAULT_TARGET else target,
        _seconds(waiting),
        more,
    )


class _TargetRow(NamedTuple):
    """A row of ``status_targets``."""

    name: str
    kind: TargetKind
    state: TargetState
    first_shard: int
    waiting: int
    failing: int
    dead: int
    age: float | None
    events: int | None
    messages: int
    forgotten: int

    def status(self, total: int | None) -> TargetStatus:
        """The target of this row; `total` is the number of stored events."""
        return TargetStatus(
            self.name,
            self.kind,
            self.state,
            self.first_shard,
            _bounded(self.waiting),
            _seconds(self.age),
            _bounded(self.failing),
            _bounded(self.dead),
            fill_progress(self.state, (self.events, self.messages, self.forgotten), total),
        )


def _shard(
    *, expires: float | None, age: float | None, position: int | None, **rest: Any
) -> tuple[Shard, int | None]:
    """The shard of a row of ``status_shards``, and the position of its first message."""
    return Shard(oldest_seconds=_seconds(age), lease_seconds=_seconds(expires), **rest), position


def _failure(
    *, last_error: str, seconds: float, failures: int, blocked: int, **rest: Any
) -> tuple[FailedMessage, int, int]:
    """The message of a row of ``status_failures``, and how many there are, and are blocked."""
    message = FailedMessage(retry_seconds=_seconds(seconds), error=last_error, **rest)
    return message, failures, blocked


def _bounded(found: int, limit: int = _LIMIT) -> Bounded:
    return Bounded(min(found, limit), more=found > limit)


def _seconds(found: float | None) -> float | None:
    """Seconds rounded to the millisecond; None for infinity, which means never."""
    return None if found is None or math.isinf(found) else round(found, 3)
