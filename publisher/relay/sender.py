"""Send: publish the first rows of each subject, and act on their outcomes."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from time import time_ns
from typing import Final

import anyio.lowlevel
from anyio import create_task_group, move_on_after
from anyio.abc import TaskGroup

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.message_map import Mapper
from dsql_outbox.publisher.relay.memory.breaker import Breaker
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject, messages_in
from dsql_outbox.publisher.sinks.port import (
    MAX_RUN,
    MAX_RUN_BYTES,
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    keeps_prefix,
)
from dsql_outbox.schema.outbox_rows import Fault

from .outcomes import Outcomes
from .state import RelayState

logger: Final = logging.getLogger("dsql_outbox")

MAX_IN_FLIGHT: Final = 8_192
"""The most messages that are on their way, or acknowledged and not deleted."""

_CALL: Final = 500
"""The most messages of one call of the sink."""

_TURN: Final = 0.05
"""Seconds that the map may take before leases, health checks and answers have their turn."""

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
        self._failing_since: float | None = None
        self._began: list[float] = []

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
        if wait := self._breaker.seconds_left(now):
            return wait
        rest = state.queues.end_rests(now)
        if self._breaker.is_failing and state.rows.in_flight:
            return float("inf")  # the end of what is on its way wakes this loop
        unsettled = state.changes.deletes
        free, most = MAX_IN_FLIGHT - state.rows.in_flight - unsettled, _CALL
        if self._breaker.is_failing:
            most = 1
            state.queues.rotate(random.random())  # noqa: S311 - a part of the broker may fail
        # Topics have a few messages of their own beyond the limit, but not while the database
        # takes no deletes: a crash would send all that is acknowledged again.
        while unsettled < MAX_IN_FLIGHT and (subjects := self._take(most, free)):
            free -= sum(len(subject.busy) for subject in subjects)
            tasks.start_soon(self._call, subjects)
            if self._breaker.is_failing:
                break
            if self._mapper is not None:  # which may take all of its turn for this call
                return 0.0
        return rest

    def _take(self, most: int, free: int) -> list[Subject]:
        """Take runs of subjects, up to `most` rows; `free` rows more may be on their way."""
        state, now = self._state, self._state.clock()
        topics, are_paused = state.topics, state.topics.are_paused
        allowed: dict[Shard, bool] = {}
        longest = MAX_RUN if keeps_prefix(self._sink) else 1

        def may_send(subject: Subject) -> int:
            shard = subject.shard
            if (has_lease := allowed.get(shard)) is None:
                has_lease = allowed[shard] = self._leases.may_send(shard.number, shard.epoch)
            if has_lease and not are_paused:
                return longest
            if has_lease and topics.takes(row := subject.rows[0], now):
                topics.note_sent(row)
                return 1 if row.topic in topics.refused else longest
            self._outcomes.withhold(subject)  # a lease that has ended may be renewed
            return 0

        return state.queues.take(most, free=free, of=MAX_IN_FLIGHT, may_send=may_send)

    async def _call(self, subjects: Sequence[Subject]) -> None:
        call = _SinkCall(subjects, self._outcomes, self._note_answer, self._mapper)
        until = self._state.clock() + _TURN
        messages = call.prepare_messages(lambda: self._state.clock() >= until)
        began = self._state.clock()
        self._began.append(began)
        try:
            with move_on_after(_LIMIT), self._leases.lease_scope(call.epochs):
                if messages:
                    await self._sink.publish(messages, call.answer)
        except SinkUnavailable as error:
            self._note_failure(error)
        finally:
            self._began.remove(began)  # the equal time of another call would do as well
            call.end()
            self._wake()

    def _note_answer(self, *, first: bool) -> None:
        """Continue to send and settle. The `first` answer of a call shows that the broker works."""
        if first:
            self._leases.note_sink_answer()
            self._breaker.note_success()
            self._failing_since = None
        self._wake()

    def _note_failure(self, error: SinkUnavailable) -> None:
        """Record that the broker as a whole failed. Calls that end together are one failure."""
        self._leases.note_sink_failure()
        now = self._state.clock()
        if self._failing_since is None:
            self._failing_since = now
        if not self._breaker.seconds_left(now):
            self._breaker.note_failure(now)
            wait = self._breaker.seconds_left(now)
            logger.warning("Relay waits %g s for the broker: %s", wait, error)

    def _wake(self) -> None:
        """Wake the sender and the settler."""
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


class _SinkCall:
    """One call of the sink: the runs of some subjects, and which messages have no answer yet.

    `epochs` has the leases of the shards that have a message without an answer. A shard whose
    messages are all answered may be handed over, and that must not cut the other messages.

    No run has rows of two epochs: its subject belongs to one `Shard`, which is lost with its
    epoch. A run that the end of its lease cuts too late does no harm to the order, since it is
    a prefix and the next owner begins at its first unsettled row. It sends copies.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        outcomes: Outcomes,
        note_answer: Callable[..., None],
        mapper: Mapper | None = None,
    ) -> None:
        self._subjects = subjects
        self._outcomes = outcomes
        self._note_answer = note_answer
        self._mapper = mapper
        self._sent: list[Subject | None] = []
        """The subject of each message that waits for its answer; runs stand side by side."""
        self._skipped = Counter[int]()
        """How many rows the map leaves out behind a message, which are settled after it."""
        self._unmapped: list[tuple[Subject, Message, Retry | Rejected]] = []
        """The subjects whose first message the map fails for, or refuses."""
        self._unanswered = Counter[int]()
        self.epochs: dict[int, int] = {}
        self._is_over = False
        self._has_answers = False

    def prepare_messages(self, is_late: Callable[[], bool]) -> list[Message]:
        """The messages of the rows; a run ends before a row that no sink gets, since it fails.

        Once it `is_late`, the map is called no more, but at least once.
        """
        picked_up_ns = time_ns()
        messages: list[Message] = []
        made = messages_in(self._subjects, picked_up_ns)
        for number, subject in enumerate(self._subjects):
            if self._mapper is not None and number and is_late():
                for each in self._subjects[number:]:
                    self._outcomes.give_back(each)
                break
            shard, began = subject.shard, len(messages)
            run = list(islice(made, len(subject.busy)))
            if self._mapper is not None:
                self._add_mapped(self._mapper, subject, run, messages, is_late)
            else:
                for message in run:
                    if isinstance(message, Fault):
                        self._outcomes.reject(subject, message, len(messages) - began)
                        break
                    messages.append(message)
            if sent := len(messages) - began:
                self._sent += [subject] * sent
                self._unanswered[shard.number] += sent
                self.epochs[shard.number] = shard.epoch
        if self._mapper is not None:
            self._fail_unmapped(self._mapper)
        return messages

    def _add_mapped(
        self,
        mapper: Mapper,
        subject: Subject,
        run: Sequence[Message | Fault],
        messages: list[Message],
        is_late: Callable[[], bool],
    ) -> None:
        """Add the wire forms of a run. Rows that the map leaves out are settled in their order.

        A row that fails, or that makes the run too large, begins the next run.
        """
        outcomes, topic = self._outcomes, subject.busy_row.topic
        size = first = 0
        for at, stored in enumerate(run):
            if at and is_late():
                outcomes.cut(subject, at)
                break
            if isinstance(stored, Fault):
                outcomes.reject(subject, stored, at)
                break
            made = mapper.map(stored)
            if made is None:
                if at == first:
                    first += 1
                else:
                    self._skipped[len(messages) - 1] += 1
                continue
            if isinstance(made, Message):
                if len(run) > 1 and (size := size + _bytes(made)) > MAX_RUN_BYTES and at > first:
                    outcomes.cut(subject, at)
                    break
                messages.append(made)
                continue
            self._stop_before(at, subject, stored, made)
            break
        for _ in range(first):
            outcomes.skip(subject)
        if mapper.works(topic):
            outcomes.note_mapped(topic)

    def _stop_before(
        self, at: int, subject: Subject, message: Message, outcome: Retry | Rejected
    ) -> None:
        """End a run before the row at this index, which fails, or note that it is the first."""
        if at:
            self._outcomes.cut(subject, at)
        else:
            self._unmapped.append((subject, message, outcome))

    def _fail_unmapped(self, mapper: Mapper) -> None:
        """Act on failures of the map: of a message, or of all messages of its topic so far.

        Only now, since the map may work for another message of the call.
        """
        for subject, message, outcome in self._unmapped:
            if isinstance(outcome, Rejected) or mapper.works(message.topic):
                mapper.tell(message, outcome)
                self._outcomes.fail(subject, outcome)
            else:
                error = outcome.error.partition("\n")[0]
                self._outcomes.refuse(subject, error, is_unmapped=True)

    def answer(self, index: int, outcome: Outcome) -> None:
        """Take the outcome of one message; `TracedSink` has checked that it is the next one."""
        subject = self._sent[index]
        if self._is_over or subject is None:
            return
        is_first = not self._has_answers and not isinstance(outcome, NotAttempted)
        self._has_answers |= is_first
        self._act_on(index, subject, outcome)
        self._note_answer(first=is_first)

    def end(self) -> None:
        """Take no more answers: messages without one were not attempted."""
        self._is_over = True
        for index, subject in enumerate(self._sent):
            if subject is not None:
                self._act_on(index, subject, NotAttempted())

    def _act_on(self, index: int, subject: Subject, outcome: Outcome) -> None:
        """Act on an outcome. Unless it is `Delivered`, it is that of the rest of the run."""
        sent, end = self._sent, index + 1
        if not isinstance(outcome, Delivered):
            while end < len(sent) and sent[end] is subject:
                end += 1
        sent[index:end] = [None] * (end - index)
        shard = subject.shard.number
        self._unanswered[shard] -= end - index
        if not self._unanswered[shard]:
            del self.epochs[shard]
        self._outcomes.act_on(subject, outcome)
        if self._skipped and isinstance(outcome, Delivered):
            for _ in range(self._skipped.pop(index, 0)):
                self._outcomes.skip(subject)


def _bytes(message: Message) -> int:
    """The bytes of payload and headers, about."""
    return len(message.payload) + len("".join(message.headers.values()))
