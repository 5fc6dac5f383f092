"""The state that the three activities of the relay share."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable

from dsql_outbox.publisher.outbox_rows import OutboxRow, RowId

from .memory.queues import Queues
from .memory.retry_times import RetryTimes
from .memory.subjects import Shard, Subject
from .memory.topics import TopicPauses


class Wake:
    """Wakes the one activity that waits here for work.

    It waits for a future and a timer: a cancel scope would cost several times as much.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the activity, or keep it awake if it works just now; called for every row."""
        self._is_set = True
        self._end_wait()

    async def wait(self, seconds: float) -> bool:
        """Wait for `set`, `seconds` at most. Returns whether it was set."""
        if seconds > 0 and not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._end_wait) if seconds < math.inf else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        was_set, self._is_set = self._is_set, False
        return was_set

    def _end_wait(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class RelayState:
    """The rows in memory, and the counts of those that left it. `clock` is in seconds.

    `busy` counts per shard the rows that are in a call of the sink, or acknowledged
    and not deleted, or given up and not buried.
    """

    def __init__(self, clock: Callable[[], float], *, topic_open_for: float) -> None:
        self.clock = clock
        self.shards: dict[int, Shard] = {}
        self.queues = Queues()
        self.retry_times = RetryTimes()
        self.topics = TopicPauses(topic_open_for)
        self.busy: Counter[int] = Counter()
        self.in_flight = 0
        self.recovered: set[RowId] = set()
        """Rows that failed earlier and are settled now, whose failures are to be deleted."""
        self.to_read = Wake()
        self.to_send = Wake()
        self.to_settle = Wake()
        self.to_stop = Wake()
        self.is_stopping = False
        self.is_drained = False
        """Whether no call of the sink runs after the stop."""
        self.stalled_since: float | None = None
        """The time since when no read found a row that can be sent; None: some may be."""
        self.waits_for_room = False
        """Whether the reader waits until rows have left the memory."""
        self.ends_when_empty = False
        """Whether the run ends with an empty outbox, so that nothing shall wait for more."""
        self.on_idle: Callable[[], None] = _nothing
        self.read = self.delivered = self.deleted = self.failed = self.dead = 0
        """The counts of rows so far; `read` counts those that came into memory."""

    @property
    def busy_shards(self) -> set[int]:
        """The shards that have a busy row."""
        return set()

    @property
    def is_empty(self) -> bool:
        """Whether no row is in memory."""
        return self.queues.is_empty

    def stop(self) -> None:
        """Read and send no more."""
        self.is_stopping = True
        for wake in (self.to_read, self.to_send, self.to_settle, self.to_stop):
            wake.set()

    def drained(self) -> None:
        """Record that no call of the sink runs."""
        self.is_drained = True
        self.to_settle.set()
        self.to_stop.set()

    def sent(self, row: OutboxRow) -> None:
        """Record that a row goes into a call of the sink."""
        self.in_flight += 1
        self.busy[row.shard] += 1
        self.topics.sending(row)

    def released(self, shard: int, rows: int = 1) -> None:
        """Record that rows of a shard are no longer busy."""
        self.busy[shard] -= rows
        if not self.busy[shard]:
            self.on_idle()

    def give_back(self, subject: Subject) -> None:
        """Drop the busy row of a subject whose shard was lost; its owner finds it again."""
        row = subject.busy_row
        self.queues.put_back(subject, self.clock())
        self.released(row.shard)

    def drop(self, subject: Subject, again_at: float) -> None:
        """Drop the rows of a subject from its busy row on; a failed row is due `again_at`."""
        self.queues.drop(subject)
        hold = subject.hold
        if hold is not None and hold.retry_at <= self.clock():  # else it is still in `retry_times`
            hold.retry_at = again_at
            self.retry_times.add(subject, hold)

    def let_go(self, subject: Subject, row: RowId) -> None:
        """Drop the hold of a row that failed earlier: it is delivered, dead or gone."""
        subject.holds = [hold for hold in subject.holds if hold.id != row]
        if subject.holds:
            self.retry_times.add(subject, subject.holds[0])
        subject.want_passed()
        subject.shard.forget_if_idle(subject)

    def go_on(self, subject: Subject) -> None:
        """Let a subject go on after a row that left it, maybe with a failed row that is due."""
        self.queues.go_on(subject)
        hold, now = subject.hold, self.clock()
        if hold is not None and not subject.rows and hold.retry_at < now:
            hold.retry_at = now  # an older entry is out of date then
            self.retry_times.add(subject, hold)

    def next_at(self, now: float) -> float:
        """Seconds until a failed row or a paused topic may be tried; maybe infinity."""
        return min(self.retry_times.wait(now), self.topics.next_at(now))

    def resume_topics(self) -> None:
        """Read all shards from the head, since rows of a topic were passed over."""
        self.stalled_since = None
        now = self.clock()
        for shard in self.shards.values():
            shard.sweep.restart(now)
        self.to_read.set()


def _nothing() -> None:
    """Do nothing when a shard is idle."""
