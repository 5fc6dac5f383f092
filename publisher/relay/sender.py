"""Send: publish the first row of each subject, and decide what its outcome means."""

import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from time import time_ns
from typing import Final, Protocol

import anyio.lowlevel
from anyio import CancelScope, create_task_group, move_on_after
from anyio.abc import TaskGroup

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.outbox_rows import Fault, OutboxRow
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    Unavailable,
)

from .memory.breaker import Breaker
from .memory.subjects import Hold, Shard, Subject
from .settler import Settler
from .state import RelayState

logger: Final = logging.getLogger("dsql_outbox")

MAX_IN_FLIGHT: Final = 4_096
"""The most messages that are on their way, or acknowledged and not deleted."""

_CALL: Final = 500
"""The most messages of one call of the sink."""

_REST: Final = 0.1
"""Seconds until a message is sent again that the sink did not attempt."""

_LIMIT: Final = 120.0
"""Seconds after which a call of the sink is given up; every sink has a shorter limit."""


_TELL: Final = 1.0
"""Seconds between two log lines about rows that can be no message."""


class Rights(Protocol):
    """The right to send messages of a shard, which lasts as long as the lease."""

    def may_send(self, shard: int, epoch: int) -> bool:
        """Whether a message that was read under this epoch may be sent now."""
        ...

    def bound(self, epochs: Mapping[int, int], /) -> AbstractContextManager[CancelScope]:
        """A scope that is cancelled when the lease of one of these shards ends."""
        ...

    def settled(self) -> None:
        """Note that a shard has no row on its way any more, nor one to settle."""
        ...

    def sink_failed(self) -> None:
        """Note that the broker could not be reached."""
        ...

    def sink_worked(self) -> None:
        """Note that the broker answered."""
        ...


class Sender:
    """Sends rows: many calls of the sink at a time, one message per subject in all of them."""

    def __init__(
        self,
        state: RelayState,
        sink: Sink,
        rights: Rights,
        settler: Settler,
        settings: PublisherSettings,
    ) -> None:
        self._state = state
        self._sink = sink
        self._rights = rights
        self._settler = settler
        self._settings = settings
        self._breaker = Breaker(failures=settings.breaker_failures, open_for=settings.breaker_open)
        self._failing_since: float | None = None
        self._began: list[float] = []
        self._faults = 0
        self._tell_faults_at = float("-inf")

    @property
    def is_available(self) -> bool:
        """Whether the broker answered when it was asked last."""
        return not self._breaker.is_failing

    async def run(self) -> None:
        """Send until the relay stops, and wait for the calls that run then.

        Raises the errors of the sink, except `SinkUnavailable`.
        """
        try:
            async with create_task_group() as tasks:
                await self._send_until_stopped(tasks)
                # `bound` cancels the calls at the end of the drain.
        except ExceptionGroup as errors:  # calls that fail together fail for one reason
            raise errors.exceptions[0] from None

    async def _send_until_stopped(self, tasks: TaskGroup) -> None:
        state = self._state
        while not state.is_stopping:
            wait = self._send(tasks)
            if any(shard.wanted for shard in state.shards.values()):
                state.to_read.set()
            await state.to_send.wait(wait)
            await anyio.lowlevel.checkpoint()  # more answers come, and a call takes more messages

    def _send(self, tasks: TaskGroup) -> float:
        """Start the calls that may start now; returns after how many seconds to look again."""
        state = self._state
        now = state.clock()
        if wait := self._breaker.wait(now):
            return wait
        rest = state.queues.end_rests(now)
        if self._breaker.is_failing and state.in_flight:
            return float("inf")
        most = MAX_IN_FLIGHT - state.in_flight - self._settler.waiting
        if self._breaker.is_failing:
            most = min(most, 1)
            state.queues.rotate(random.random())  # noqa: S311 - a part of the broker may fail
        while most > 0 and (subjects := self._take(min(most, _CALL))):
            most -= len(subjects)
            tasks.start_soon(self._call, subjects)
        return rest

    def _take(self, most: int) -> list[Subject]:
        """Take subjects whose first row may be sent."""
        state, now = self._state, self._state.clock()
        chosen: list[Subject] = []
        rights: dict[Shard, bool] = {}
        while len(chosen) < most and (taken := state.queues.take(most - len(chosen))):
            for subject in taken:
                row, shard = subject.busy_row, subject.shard
                takes = not state.topics.names or state.topics.takes(row, now)
                if (may_send := rights.get(shard)) is None:
                    may_send = rights[shard] = self._rights.may_send(shard.number, shard.epoch)
                if not takes or not may_send:
                    state.queues.drop(subject)
                else:
                    state.sent(row)
                    chosen.append(subject)
        return chosen

    async def _call(self, subjects: Sequence[Subject]) -> None:
        call = _Call(self, subjects)
        messages = call.messages()
        began = self._state.clock()
        self._began.append(began)
        try:
            with move_on_after(_LIMIT), self._rights.bound(call.epochs):
                await self._sink.publish(messages, call.answer)
        except SinkUnavailable as error:
            self._failed(error)
        finally:
            call.is_over = True
            self._began.remove(began)
            for subject in call.unanswered():
                self.ended(subject, NotAttempted())
            self.wake()

    def _failed(self, error: SinkUnavailable) -> None:
        """Note that the broker as a whole failed; calls that end together count as one failure."""
        self._rights.sink_failed()
        now = self._state.clock()
        if self._failing_since is None:
            self._failing_since = now
        if not self._breaker.wait(now):
            self._breaker.failed(now)
            wait = self._breaker.wait(now)
            logger.warning("Relay waits %g s for the broker: %s", wait, error)

    def wake(self) -> None:
        """Send and settle what has become possible."""
        self._state.to_send.set()
        self._state.to_settle.set()

    @property
    def stalled_since(self) -> float | None:
        """The time since when the broker cannot be reached, or None."""
        return self._failing_since

    @property
    def progresses(self) -> bool:
        """Whether no call of the sink is past its limit, as it is when it cannot be cancelled."""
        now = self._state.clock()
        return all(now < began + 2 * _LIMIT for began in self._began)

    def worked(self) -> None:
        """Note that the broker answered."""
        self._rights.sink_worked()
        self._breaker.succeeded()
        self._failing_since = None

    def message(self, subject: Subject, picked_up_ns: int) -> Message | Fault:
        """The message of the busy row of a subject."""
        row, attempt = subject.busy_row, 1
        if subject.holds and (hold := subject.holds[0]).id == row.id:
            attempt = hold.attempts + 1
        return row.message(attempt=attempt, picked_up_ns=picked_up_ns, epoch=subject.shard.epoch)

    def fault(self, subject: Subject, fault: Fault) -> None:
        """Reject the busy row of a subject, which can be no message; one log line per second."""
        now = self._state.clock()
        self._faults += 1
        if now >= self._tell_faults_at:
            text = "Row of shard %d, position %d, event %s can be no message: %s (%d rows)"
            logger.warning(text, *subject.busy_row.id, fault.reason, self._faults)
            self._faults, self._tell_faults_at = 0, now + _TELL
        self.ended(subject, Rejected(f"can be no message: {fault.reason}"))

    def ended(self, subject: Subject, outcome: Outcome) -> None:
        """Do what the outcome of the busy row of a subject demands."""
        state = self._state
        state.in_flight -= 1
        if isinstance(outcome, Delivered):
            self._delivered(subject)
        elif isinstance(outcome, NotAttempted) or subject.shard.is_lost:
            if state.topics.found:
                state.topics.missed(subject.busy_row.id)
            if state.queues.is_full and not subject.shard.is_lost:
                state.queues.drop(subject)  # or what cannot be sent leaves no room for others
            else:
                state.queues.put_back(subject, state.clock() + _REST)
            state.released(subject.shard.number)
        elif isinstance(outcome, Unavailable):
            self._refused(subject, outcome.error)
        else:
            self._topic_works(subject.busy_row)
            self.fail(subject, outcome)

    def _delivered(self, subject: Subject) -> None:
        state = self._state
        self._topic_works(subject.busy_row)
        if self._settler.applier is not None:
            self._settler.applier.add(subject)
            return
        state.delivered += 1
        row = state.queues.delivered(subject)
        failed_before = bool(subject.holds) and subject.holds[0].id == row.id
        self._settler.acknowledge(row, failed_before=failed_before)
        if failed_before:
            state.let_go(subject, row.id)
        state.go_on(subject)

    def fail(self, subject: Subject, outcome: Retry | Rejected) -> None:
        """Record a failed attempt; the row then waits for the next one, or is given up."""
        state, row, hold = self._state, subject.busy_row, subject.hold
        settings = self._settings.for_topic(row.topic)
        attempts = hold.attempts + 1 if hold is not None and hold.id == row.id else 1
        is_final = isinstance(outcome, Rejected) or attempts >= settings.attempts
        if is_final and settings.on_dead_letter == "release":
            self._settler.bury(subject, row.id, outcome.error, attempts)
            return
        state.failed += 1
        seconds = None if is_final else settings.backoff(attempts)
        retry_at = float("inf") if seconds is None else state.clock() + seconds
        new = Hold(row.id, attempts, retry_at)
        if hold is not None and hold.id == row.id:
            subject.holds[0] = new
        else:
            subject.holds.insert(0, new)
        state.queues.drop(subject)
        subject.pass_over(row.position)
        state.holds.add(subject, new)
        state.released(subject.shard.number)
        self._settler.record(subject.shard, new, outcome.error, seconds)
        if seconds is not None and seconds < self._settings.idle_max:
            state.to_read.set()

    def _refused(self, subject: Subject, error: str) -> None:
        """Pause the topic of a row, which is not at fault."""
        state, row = self._state, subject.busy_row
        if state.topics.refused(row, state.clock()):
            logger.warning("Topic %s takes no messages now: %s", row.topic, error)
        state.queues.drop(subject)
        if hold := subject.hold:  # it failed earlier, and is tried again when the topic may work
            hold.retry_at = state.clock() + self._settings.breaker_open
            state.holds.add(subject, hold)
        state.released(subject.shard.number)

    def _topic_works(self, row: OutboxRow) -> None:
        if self._state.topics.found and self._state.topics.worked(row.topic):
            logger.info("Topic %s takes messages again", row.topic)
            self._state.resume_topics()


class _Call:
    """One call of the sink: its subjects, and which of them have an answer."""

    def __init__(self, sender: Sender, subjects: Sequence[Subject]) -> None:
        self._sender = sender
        self._subjects = subjects
        self._sent: list[Subject | None] = []
        self.epochs = {each.shard.number: each.shard.epoch for each in subjects}
        self.is_over = False
        self.has_answers = False

    def messages(self) -> list[Message]:
        """The messages of the rows; a row that can be none is rejected, since no sink gets it."""
        picked_up_ns = time_ns()
        messages: list[Message] = []
        for subject in self._subjects:
            made = self._sender.message(subject, picked_up_ns)
            if isinstance(made, Fault):
                self._sender.fault(subject, made)
            else:
                messages.append(made)
                self._sent.append(subject)
        return messages

    def answer(self, index: int, outcome: Outcome) -> None:
        """Take the outcome of one message; `TracedSink` has checked that it is the first."""
        subject = self._sent[index]
        if self.is_over or subject is None:
            return
        self._sent[index] = None
        if not self.has_answers and not isinstance(outcome, NotAttempted):
            self.has_answers = True
            self._sender.worked()
        self._sender.ended(subject, outcome)
        self._sender.wake()

    def unanswered(self) -> list[Subject]:
        """The subjects without an answer."""
        return [subject for subject in self._sent if subject is not None]
