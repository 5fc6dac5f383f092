"""The state that the three activities of the relay share."""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from dsql_outbox.publisher.relay.memory.changes import Changes
from dsql_outbox.publisher.relay.memory.queues import Queues
from dsql_outbox.publisher.relay.memory.retry_times import RetryTimes
from dsql_outbox.publisher.relay.memory.rows import Rows
from dsql_outbox.publisher.relay.memory.shares import RETRIES
from dsql_outbox.publisher.relay.memory.topics import TopicPauses

if TYPE_CHECKING:
    from dsql_outbox.publisher.relay.memory.subjects import Shard

_SHORT_OUTAGE: Final = 0.1
_LONG_OUTAGE: Final = 1.0


def outage_wait(seconds: float) -> float:
    """Seconds until the next try of a database that has not answered for some seconds.

    Tries of a short outage come soon, and those of a long one fill neither the log nor the server.
    """
    return min(_LONG_OUTAGE, max(_SHORT_OUTAGE, seconds))


class Wake:
    """Wakes the one activity that waits here for work.

    It waits for a future and a timer: a cancel scope would cost several times as much.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the activity, or keep it awake if it works just now; called for every row."""
        if not self._is_set:
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
    """The rows in memory, and the counts of those that left it. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.shards: dict[int, Shard] = {}
        self.rows = Rows()
        self.queues = Queues(self.rows)
        self.changes = Changes()
        self.retry_times = RetryTimes()
        self.topics = TopicPauses()
        self.to_read = Wake()
        self.to_send = Wake()
        self.to_settle = Wake()
        self.to_stop = Wake()
        self.is_stopping = False
        self.is_drained = False
        """Whether no call of the sink runs after the stop."""
        self.stalled_since: float | None = None
        """The time since when no read found a row that can be sent; None: some may be.

        Tries of failed rows and of paused topics that settle nothing do not begin it anew.
        """
        self.waits_for_room = False
        """Whether the reader waits until rows have left the memory."""
        self.ends_when_empty = False
        """Whether the run ends with an empty outbox, so that nothing shall wait for more."""
        self.read = self.delivered = self.skipped = self.deleted = self.failed = self.dead = 0
        """The counts of rows so far; `read` counts those that came into memory."""

    @property
    def is_empty(self) -> bool:
        """Whether no row is in memory."""
        return not self.rows.shares.rows

    @property
    def settled(self) -> int:
        """How many rows the broker or the tables have, or the map left out."""
        return self.delivered + self.skipped + self.dead

    def stop(self) -> None:
        """Read and send no more."""
        self.is_stopping = True
        for wake in (self.to_read, self.to_send, self.to_settle, self.to_stop):
            wake.set()

    def wake_waiting(self) -> None:
        """Wake those who wait for rows to leave the memory, or for a subject to go on."""
        if self.waits_for_room or self.rows.shares.full:
            self.to_read.set()
        self.to_send.set()

    def end_sending(self) -> None:
        """Record that no call of the sink runs."""
        self.is_drained = True
        self.to_settle.set()
        self.to_stop.set()

    def seconds_left(self, now: float) -> float:
        """Seconds until a failed row or a paused topic may be tried; maybe infinity."""
        is_full = RETRIES in self.rows.shares.full
        return min(
            math.inf if is_full else self.retry_times.seconds_left(now),
            self.topics.seconds_left(now),
        )

    def resume_topics(self) -> None:
        """Read all shards from the head, since a topic takes messages again whose rows were passed.

        Failed rows that were put off are due, since the topic of a row is not known before it is
        read. Those of other topics are put off again.
        """
        now, self.stalled_since = self.clock(), None
        self.to_read.set()
        for shard in self.shards.values():
            shard.sweep.restart(now)
            for subject in shard.subjects.values():
                if (hold := subject.hold) is not None and hold.is_put_off:
                    hold.is_put_off = False
                    hold.retry_at = min(hold.retry_at, now)
                    self.retry_times.add(subject, hold)
