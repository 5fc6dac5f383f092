"""Send: take the rows that may go, and start the calls of the sink."""

import logging
import random
from collections.abc import Sequence
from typing import Final

import anyio.lowlevel
from anyio import create_task_group, move_on_after
from anyio.abc import TaskGroup

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay.memory.breaker import Breaker
from dsql_outbox.publisher.relay.memory.pages import Page
from dsql_outbox.publisher.relay.memory.queues import rows_in
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject
from dsql_outbox.publisher.sinks.port import (
    MAX_RUN,
    Outcome,
    Sink,
    keeps_prefix,
)

from .outcomes import Outcomes
from .sink_call import SinkCall
from .state import RelayState

logger: Final = logging.getLogger("dsql_outbox")

MAX_IN_FLIGHT: Final = 8_192
"""The most messages that are on their way, or acknowledged and not deleted."""

_CALL: Final = 500
"""The most messages of one call of the sink."""

_TURN: Final = 0.05
"""Seconds that the map may take before leases, health checks and answers have their turn. If one
call of it takes longer, they have as long as it took beyond that."""

_LIMIT: Final = 120.0
"""Seconds after which a call of the sink is given up; every sink has a shorter limit."""


class Sender:
    """Sends rows: many calls of the sink at a time, one run per subject in all of them."""

    def __init__(  # noqa: PLR0913 - the parts of a relay
        self,
        state: RelayState,
        sink: Sink,
        leases: Leases,
        outcomes: Outcomes,
        breaker: Breaker,
        *,
        mapper: Mapper | None = None,
    ) -> None:
        self._state = state
        self._sink = sink
        self._leases = leases
        self._outcomes = outcomes
        self._breaker = breaker
        self._mapper = mapper
        self._is_asking = False
        self._began: list[float] = []
        self._turn_at = float("-inf")
        """When the map has its next turn."""

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
        """Start the calls that may start now. Returns the seconds until the next look."""
        state = self._state
        now = state.clock()
        if wait := max(self._breaker.seconds_left(now), self._turn_at - now, 0.0):
            return wait
        rest = state.queues.end_rests(now)
        if self._breaker.is_failing and (state.rows.in_flight or self._is_asking):
            return float("inf")  # the end of what is on its way wakes this loop
        unsettled = state.changes.deletes
        free, most = MAX_IN_FLIGHT - state.rows.in_flight - unsettled, _CALL
        if self._breaker.is_failing:
            most = 1
            state.queues.rotate(random.random())  # noqa: S311 - a part of the broker may fail
        # Topics have a few messages of their own beyond the limit, but not while the database
        # takes no deletes: a crash would send all that is acknowledged again.
        if unsettled >= MAX_IN_FLIGHT:
            logger.debug("Sends nothing, since %d rows are to be deleted first", unsettled)
        while unsettled < MAX_IN_FLIGHT and (taken := self._take(most, free)):
            free -= sum(map(rows_in, taken))
            tasks.start_soon(self._call, taken)
            if self._breaker.is_failing:
                break
            if self._mapper is not None:  # which may take all of its turn for this call
                return 0.0
        if self._breaker.is_failing and not state.rows.shares.rows:
            self._is_asking = True
            tasks.start_soon(self._ask)
        return rest

    async def _ask(self) -> None:
        """Ask the broker by a call without messages, as there is none to try it with.

        A publisher that left its shards to others has none until it takes part again.
        """
        try:
            with move_on_after(_LIMIT), self._leases.lease_scope(dict):
                await self._sink.publish((), _take_no_answer)
                self._note_answer(first=True)
        except SinkUnavailable as error:
            self._note_failure(error)
        finally:
            self._is_asking = False
            self._wake()

    def _take(self, most: int, free: int) -> list[Subject | Page]:
        """Take pages and runs of subjects, up to `most` rows; `free` more may be on their way."""
        state, now = self._state, self._state.clock()
        topics, are_paused = state.topics, state.topics.are_paused
        allowed: dict[Shard, bool] = {}
        longest = MAX_RUN if keeps_prefix(self._sink) else 1

        def may_send(each: Subject | Page) -> int:
            shard = each.shard
            if (has_lease := allowed.get(shard)) is None:
                has_lease = allowed[shard] = self._leases.may_send(shard.number, shard.epoch)
                if not has_lease:
                    logger.debug("Shard %d: sends nothing, its lease has ended", shard.number)
            if isinstance(each, Page):
                if has_lease and not topics.is_paused(each.topic):
                    return longest if self._mapper is None else 1
                # A topic that goes on has all of its rows read again. A lease may be renewed.
                state.queues.drop_page(each, is_wanted=not has_lease)
                state.to_read.set()
                return 0
            if has_lease and not are_paused:
                return longest
            if has_lease and topics.takes(row := each.rows[0], now):
                topics.note_sent(row)
                return 1 if row.topic in topics.refused else longest
            self._outcomes.drop(each)  # a lease that has ended may be renewed
            return 0

        return state.queues.take(most, free=free, of=MAX_IN_FLIGHT, may_send=may_send)

    async def _call(self, taken: Sequence[Subject | Page]) -> None:
        call = SinkCall(taken, self._outcomes, self._note_answer, self._mapper)
        until = self._state.clock() + _TURN
        messages = call.prepare_messages(lambda: self._state.clock() >= until)
        began = self._state.clock()
        self._turn_at = began + (began - until)
        self._began.append(began)
        try:
            with move_on_after(_LIMIT), self._leases.lease_scope(call.epochs):
                if messages:
                    await self._sink.publish(messages, call.answers)
        except SinkUnavailable as error:
            self._note_failure(error)
        finally:
            self._began.remove(began)  # the equal time of another call would do as well
            call.end()
            self._wake()
            if messages and logger.isEnabledFor(logging.DEBUG):
                text = "Shards %s: sent %d messages in %.3f s: %s"
                seconds = self._state.clock() - began
                logger.debug(text, call.shards, len(messages), seconds, call.answers.counts())

    def _note_answer(self, *, first: bool) -> None:
        """Continue to send and settle. The `first` answer of a call shows that the broker works."""
        if first:
            self._leases.note_sink_answer()
            self._breaker.note_success()
        self._wake()

    def _note_failure(self, error: SinkUnavailable) -> None:
        """Record that the broker as a whole failed. Calls that end together are one failure."""
        self._leases.note_sink_failure()
        now = self._state.clock()
        if not self._breaker.seconds_left(now):
            self._breaker.note_failure(now)
            wait = self._breaker.seconds_left(now)
            logger.warning("Relay waits %g s for the broker: %s", wait, error)

    def _wake(self) -> None:
        """Wake the sender and the settler."""
        self._state.to_send.set()
        self._state.to_settle.set()

    @property
    def failing_since(self) -> float | None:
        """The time since when the broker cannot be reached, or None."""
        return self._breaker.failing_since

    @property
    def progresses(self) -> bool:
        """Whether no call of the sink is past its limit, as it is when it cannot be cancelled."""
        now = self._state.clock()
        return all(now < began + 2 * _LIMIT for began in self._began)


def _take_no_answer(_index: int, _outcome: Outcome) -> None:
    """Take no answer, since no message is published."""
