"""Outcomes: the meaning of the broker's answer for a row, its subject and its topic."""

import logging
from typing import Final

from dsql_outbox.publisher.relay.memory.subjects import Hold, Shard, Subject
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.port import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.schema.outbox_rows import Fault, OutboxRow

from .settler import Settler
from .state import RelayState

logger: Final = logging.getLogger("dsql_outbox")

REST: Final = 0.1
"""Seconds until a message is sent again that the sink did not attempt."""

_TELL: Final = 1.0
"""Seconds between two log lines about rows that are not valid messages."""


class Outcomes:
    """Decides the fate of the busy row of a subject, and when the subject continues."""

    def __init__(self, state: RelayState, settler: Settler, settings: PublisherSettings) -> None:
        self._state = state
        self._settler = settler
        self._settings = settings
        self._faults = 0
        self._tell_faults_at = float("-inf")

    @property
    def unsettled(self) -> int:
        """How many acknowledged rows are not deleted yet."""
        return self._settler.waiting

    def reject(self, subject: Subject, fault: Fault, at: int) -> None:
        """Reject the row at index `at` of a run, an invalid message, if it is the first one.

        A later one begins the next run. At most one log line per second.
        """
        self._state.queues.cut(subject, max(1, at))
        if at:
            return
        state, row = self._state, subject.busy_row
        now = state.clock()
        self._faults += 1
        if now >= self._tell_faults_at:
            text = "Row of shard %d, position %d, event %s is not a valid message: %s (%d rows)"
            logger.warning(text, *row.id, fault.reason, self._faults)
            self._faults, self._tell_faults_at = 0, now + _TELL
        if state.topics.refused:
            state.topics.give_up_probe(row.id)
        self.fail(subject, Rejected(f"is not a valid message: {fault.reason}"))

    def cut(self, subject: Subject, at: int) -> None:
        """Let the row at index `at` of a run begin the next one."""
        self._state.queues.cut(subject, at)

    def postpone(self, subject: Subject) -> None:
        """Let the run of a subject wait again, since its call is not to prepare more messages."""
        state = self._state
        state.queues.cut(subject, 1)
        if state.topics.refused:
            state.topics.give_up_probe(subject.busy_row.id)
        state.give_back(subject)

    def skip(self, subject: Subject) -> None:
        """Settle the busy row of a subject, which the map leaves out: no sink gets it."""
        state, row = self._state, subject.busy_row
        if state.topics.refused:
            state.topics.give_up_probe(row.id)
        state.rows.shares.note_answer(row)
        state.skipped += 1
        self._settler.acknowledge(subject)

    def fail_unsent(self, subject: Subject, outcome: Retry | Rejected) -> None:
        """Act on a failure of the map for the busy row of a subject, or on its refusal."""
        state = self._state
        state.queues.cut(subject, 1)
        if state.topics.refused:
            state.topics.give_up_probe(subject.busy_row.id)
        self.fail_or_give_back(subject, outcome)

    def pause_unmapped(self, subject: Subject, error: str) -> None:
        """Pause the topic of the busy row of a subject, since the map works for none of it."""
        state = self._state
        state.queues.cut(subject, 1)
        left_out = state.topics.pause_unmapped(subject.busy_row, state.clock())
        self._wait_for_topic(subject, error, left_out)

    def note_mapped(self, topic: str) -> None:
        """Record that the map works for messages of a topic."""
        if self._state.topics.is_unmapped(topic):
            self._resume(topic)

    def act_on(self, subject: Subject, outcome: Outcome) -> None:
        """Act on the outcome of the busy row of a subject, whose run goes on if it is delivered."""
        state = self._state
        if isinstance(outcome, Delivered):
            self._settle_delivered(subject)
            return
        state.queues.cut(subject, 1)
        if isinstance(outcome, NotAttempted) or self._is_left(subject.shard, outcome):
            if state.topics.refused:
                state.topics.give_up_probe(subject.busy_row.id)
            is_crowded = state.queues.is_crowded(subject.busy_row)
            if is_crowded and not subject.shard.is_lost:
                # Or what cannot be sent leaves no room for others.
                state.drop(subject, state.clock() + REST)
            else:
                state.queues.put_back(subject, state.clock() + REST)
        elif isinstance(outcome, Unavailable):
            self._pause_topic(subject, outcome.error)
        else:
            self._note_answer(subject.busy_row)
            self.fail(subject, outcome)

    def _is_left(self, shard: Shard, outcome: Outcome) -> bool:
        """Whether the next owner of a shard sends a row again as if there were no answer.

        A failure in a shard that drains counts, or the row would not wait there.
        """
        is_failure = isinstance(outcome, Retry | Rejected)
        return shard.is_lost and not (is_failure and self._settler.has_lease(shard))

    def _settle_delivered(self, subject: Subject) -> None:
        self._note_answer(subject.busy_row)
        if self._settler.applier is not None:
            self._settler.applier.add(subject)
        else:
            self._state.delivered += 1
            self._settler.acknowledge(subject)

    def fail_or_give_back(self, subject: Subject, outcome: Retry | Rejected) -> None:
        """Act on a failure of the function that was to be applied, or of the map."""
        if self._is_left(subject.shard, outcome):
            self._state.give_back(subject)
        else:
            self.fail(subject, outcome)

    def fail(self, subject: Subject, outcome: Retry | Rejected) -> None:
        """Record a failed attempt; the row then waits for the next one, or is given up."""
        state, row = self._state, subject.busy_row
        settings = self._settings.for_topic(row.topic)
        attempts = subject.attempt
        next_step = settings.consequence(attempts, is_rejected=isinstance(outcome, Rejected))
        if next_step == "dead_letter":
            self._settler.bury(subject, outcome.error, attempts)
            return
        state.failed += 1
        seconds = None if next_step == "block" else settings.backoff(attempts)
        retry_at = float("inf") if seconds is None else state.clock() + seconds
        new = Hold(row.id, attempts, retry_at, row.size)
        if subject.busy_hold is None:
            subject.holds.insert(0, new)
        else:
            subject.holds[0] = new
        # Recorded first: a shard without a busy row may be handed over, but not with a failure.
        self._settler.record(subject, new, outcome.error, seconds)
        state.queues.drop(subject)
        subject.pass_over(row.position)
        state.retry_times.add(subject, new)
        if seconds is not None and seconds < self._settings.longest_idle:
            state.to_read.set()

    def _pause_topic(self, subject: Subject, error: str) -> None:
        """Pause the topic of a row, which is not at fault."""
        state = self._state
        self._wait_for_topic(subject, error, state.topics.pause(subject.busy_row, state.clock()))

    def _wait_for_topic(self, subject: Subject, error: str, left_out: int | None) -> None:
        """Let a subject wait for the topic of its busy row, and log what `pause` says."""
        state = self._state
        if left_out is not None:
            more = f"; {left_out:,} more topics were refused before" if left_out else ""
            topic = subject.busy_row.topic
            logger.warning("Topic %s takes no messages now: %s%s", topic, error, more)
        # A row that failed earlier is tried again when the topic may work.
        state.drop(subject, state.clock() + state.topics.PAUSE)

    def _note_answer(self, row: OutboxRow) -> None:
        self._state.rows.shares.note_answer(row)
        if self._state.topics.refused:
            self._resume(row.topic)

    def _resume(self, topic: str) -> None:
        """End the pause of a topic that was refused, if there is one."""
        pause = self._state.topics.resume(topic)
        if pause is not None:
            if pause.is_told:
                logger.info("Topic %s takes messages again", topic)
            self._state.resume_topics()
