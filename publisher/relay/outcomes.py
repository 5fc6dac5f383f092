"""Outcomes: how a row on its way ends, and what follows for its subject and its topic.

`Outcomes` is the one way out of a run, with a method for each end. Each method reads from top to
bottom: the books and the topic, what the tables must learn (`memory.changes`), and the subject
(`memory.queues`).

    delivered       deliver      it is to be deleted, and its subject goes on at once
    skipped         skip         the map leaves it out: as if it were delivered
    failed          fail         it waits for its next attempt, or is given up
    refused         refuse       its topic is paused, and counts no attempt
    deferred        defer        it waits for its next try, and counts no attempt
    not attempted   rest         it is sent again soon
    given back      give_back    it is sent again, by the next owner if its shard was lost
    dropped         drop         its lease or its topic does not allow it: it is read again

`deliver_part` and `skip_part` end rows of a page together. For any other end a run leaves its page
first: `take_out`. A row that is applied or given up stays with its subject until the tables have
it: `note_applied`, `note_buried`.
"""

import logging
from typing import TYPE_CHECKING, Final

from dsql_outbox.publisher.leases.keeper import Leases
from dsql_outbox.publisher.relay.memory.pages import Page, Part
from dsql_outbox.publisher.relay.memory.subjects import Hold, Shard, Subject
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.port import (
    Deferred,
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.schema.outbox_rows import Fault, OutboxRow, Stage

from .state import RelayState

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger("dsql_outbox")

REST: Final = 0.1
"""Seconds until a message is sent again that the sink did not attempt."""

_TELL: Final = 1.0
"""Seconds between two log lines about rows that are not valid messages."""


class Outcomes:
    """Ends the busy row of a subject. Unless it is delivered or skipped, its run ends with it."""

    def __init__(self, state: RelayState, settings: PublisherSettings, leases: Leases) -> None:
        self._state = state
        self._settings = settings
        self._leases = leases
        self._faults = 0
        self._tell_faults_at = float("-inf")
        self.apply: Callable[[Subject], None] = self.deliver
        """Takes a row that the sink has, in case that a function is to run with its DELETE."""

    def act_on(self, subject: Subject, outcome: Outcome) -> None:
        """End the busy row of a subject as the sink has answered."""
        if isinstance(outcome, Delivered):
            self._note_answer(subject.busy_row)
            self.apply(subject)
        elif isinstance(outcome, NotAttempted):
            self.rest(subject)
        elif isinstance(outcome, Unavailable):
            self.refuse(subject, outcome.error)
        elif isinstance(outcome, Deferred):
            self.defer(subject, outcome.error)
        else:
            self._note_answer(subject.busy_row)
            self.fail(subject, outcome)

    # --- the ends ------------------------------------------------------------------------

    def deliver(self, subject: Subject) -> None:
        """Have the busy row deleted, which the broker has."""
        self._state.delivered += 1
        self._acknowledge(subject)

    def deliver_part(self, part: Part) -> None:
        """Have rows of a page deleted, which the broker has."""
        self._state.delivered += len(part)
        self._note_answers(part.page.topic, part.page.topic, len(part), part.size)
        self._acknowledge_part(part)

    def skip_part(self, part: Part) -> None:
        """Have rows of a page deleted, which the map leaves out."""
        self._state.skipped += len(part)
        self._state.rows.shares.note_answers(part.page.topic, len(part), part.size)
        self._acknowledge_part(part)

    def take_out(self, page: Page, at: int) -> Subject:
        """Let a run that is on its way leave its page, so that it can end in another way."""
        subject = self._state.queues.take_out(page, at)
        if subject is None:
            raise AssertionError("a row of a page that is delivered has no other end")
        return subject

    def skip(self, subject: Subject) -> None:
        """Have the busy row deleted, which the map leaves out: no sink gets it."""
        self._state.skipped += 1
        row = subject.busy_row
        self._state.rows.shares.note_answers(row.share, 1, row.size)
        self._give_up_probe(subject)
        self._acknowledge(subject)

    def fail(self, subject: Subject, outcome: Retry | Rejected) -> None:
        """Count a failed attempt; the row then waits for the next one, or is given up.

        If the lease is over, the next owner sends the row again as if there were no answer. A
        failure in a shard that drains counts, or the row would not wait there.
        """
        state, row = self._state, subject.busy_row
        if subject.shard.is_lost and not self.has_lease(subject.shard):
            self.give_back(subject)
            return
        self._give_up_probe(subject)
        settings, attempts = self._settings.for_topic(row.topic), subject.attempt
        next_step = settings.consequence(attempts, is_rejected=isinstance(outcome, Rejected))
        if next_step == "dead_letter":
            self._bury(subject, outcome.error, attempts)
            return
        state.failed += 1
        seconds = None if next_step == "block" else settings.backoff(attempts)
        retry_at = float("inf") if seconds is None else state.clock() + seconds
        new = Hold(row.id, attempts, retry_at, row.size)
        # Recorded first: a shard without a busy row may be handed over, but not with a failure.
        state.changes.record(subject, new, outcome.error, seconds)
        subject.note_failure(new)
        self._read_again(subject, retry_at)
        if seconds is not None and seconds < self._settings.longest_idle:
            state.to_read.set()

    def refuse(self, subject: Subject, error: str, *, is_unmapped: bool = False) -> None:
        """Pause the topic of the busy row, which is not at fault.

        The broker refused the topic; or, if it `is_unmapped`, the map works for none of it.
        """
        topics, row, now = self._state.topics, subject.busy_row, self._state.clock()
        if subject.shard.is_lost:
            self.give_back(subject)
            return
        left_out = topics.pause_unmapped(row, now) if is_unmapped else topics.pause(row, now)
        self._tell_pause(row.topic, error, left_out)
        # A row that failed earlier is tried again when the topic may work.
        self._read_again(subject, now + topics.PAUSE)

    def defer(self, subject: Subject, error: str) -> None:
        """Let the subject wait for its next try, which is no attempt: its row is not at fault.

        If the broker takes no message of the topic, the topic is paused. Another subject tries it
        then, while this one waits: its part of the broker may be the only one that fails.
        """
        state, row = self._state, subject.busy_row
        topics, now = state.topics, state.clock()
        if subject.shard.is_lost:
            self.give_back(subject)
            return
        hold = subject.busy_hold
        if hold is None:
            hold = Hold(row.id, 0, now, row.size)
            subject.note_failure(hold)
        hold.deferrals += 1
        hold.retry_at = now + self._settings.for_topic(row.topic).backoff(hold.deferrals)
        if topics.note_deferred(row.topic, now):
            self._tell_pause(row.topic, error, topics.pause(row, now))
            hold.is_put_off = True  # it is due when the topic takes messages again
        self._read_again(subject, hold.retry_at)

    def rest(self, subject: Subject) -> None:
        """Let the run be sent again soon, since the sink did not attempt it."""
        state = self._state
        self._give_up_probe(subject)
        if state.queues.is_crowded(subject.busy_row) and not subject.shard.is_lost:
            self.drop(subject)  # or what cannot be sent leaves no room for others
        else:
            state.queues.requeue_later(subject, state.clock() + REST)

    def give_back(self, subject: Subject) -> None:
        """Leave the run to the owner of the shard: this relay sends it again, unless it lost it."""
        self._give_up_probe(subject)
        self._state.queues.requeue_later(subject, self._state.clock())

    def drop(self, subject: Subject) -> None:
        """Drop the rows of a subject that cannot be sent now, and have them read again."""
        self._read_again(subject, self._state.clock() + REST)

    # --- of a row that is applied, or given up -----------------------------------------------

    def note_applied(self, subject: Subject) -> None:
        """Record that the function of the busy row and its DELETE have committed."""
        self._state.delivered += 1
        self._state.deleted += 1
        row = subject.busy_row.id
        if self._end(subject, "settled"):
            self._state.changes.recover(row)

    def note_buried(self, subject: Subject) -> None:
        """Record that the burial of the busy row has committed, which deletes its failure too."""
        self._state.dead += 1
        self._end(subject, "settled")

    # --- before a row is sent ------------------------------------------------------------------

    def cut(self, subject: Subject, at: int) -> None:
        """Let the row at index `at` of a run begin the next one."""
        self._state.queues.requeue(subject, at)

    def reject(self, subject: Subject, fault: Fault, at: int) -> None:
        """Reject the row at index `at` of a run, an invalid message, if it is the first one.

        A later one begins the next run. At most one log line per second.
        """
        if at:
            self.cut(subject, at)
            return
        now, row = self._state.clock(), subject.busy_row
        self._faults += 1
        if now >= self._tell_faults_at:
            text = "Row of shard %d, position %d, event %s is not a valid message: %s (%d rows)"
            logger.warning(text, *row.id, fault.reason, self._faults)
            self._faults, self._tell_faults_at = 0, now + _TELL
        self.fail(subject, Rejected(f"is not a valid message: {fault.reason}"))

    def note_mapped(self, topic: str) -> None:
        """Record that the map works for messages of a topic."""
        if self._state.topics.is_unmapped(topic):
            self._resume(topic)

    # --- what they share ------------------------------------------------------------------------

    def has_lease(self, shard: Shard) -> bool:
        """Whether failures in a shard may be recorded: its lease lasts, maybe while it drains."""
        return self._leases.has_lease(shard.number, shard.epoch)

    def _acknowledge(self, subject: Subject) -> None:
        changes, row = self._state.changes, subject.busy_row
        is_first = changes.acknowledge(row)
        if self._end(subject, "acknowledged" if is_first else "outbox"):
            changes.recover(row.id)

    def _acknowledge_part(self, part: Part) -> None:
        self._state.rows.move(part, "acknowledged")
        self._state.queues.finish_part(part)
        self._state.changes.acknowledge_part(part)

    def _end(self, subject: Subject, to: Stage) -> bool:
        """Let the busy row leave for good, and its subject go on. Returns whether it had failed."""
        row = self._state.queues.finish(subject, to)
        hold = subject.hold
        if hold is None:
            return False
        if hold.id == row.id:
            self._state.retry_times.forget(subject, row.id)
            return hold.attempts > 0
        if not subject.rows:
            self._state.retry_times.add(subject, hold)
        return False

    def _bury(self, subject: Subject, error: str, attempts: int) -> None:
        """Have the busy row buried; its subject goes on when that has committed."""
        state = self._state
        state.queues.requeue(subject, 1)
        earlier = state.changes.bury(subject, error, attempts)
        if earlier is not None:  # its shard was lost and taken again meanwhile
            self.give_back(earlier)
        state.rows.move(subject.busy_row, "burying")

    def _read_again(self, subject: Subject, due_at: float) -> None:
        """Have the rows of a subject read again, from its busy row on.

        A failed row whose time has come is due then.
        """
        state = self._state
        state.queues.drop(subject)
        if (hold := subject.hold) is not None:
            if hold.retry_at <= state.clock():
                state.retry_times.put_off(subject, hold, due_at)
            else:
                state.retry_times.add(subject, hold)
            text = "Shard %d: behind position %d, event %s, its subject waits for %.3f s"
            logger.debug(text, *hold.id, hold.retry_at - state.clock())

    def _give_up_probe(self, subject: Subject) -> None:
        """Let another row try the topic, if this one was to: no broker has judged it."""
        topics, row = self._state.topics, subject.busy_row
        if topics.refused and row.stage == "sent":
            topics.give_up_probe(row.id)

    def _note_answer(self, row: OutboxRow) -> None:
        self._note_answers(row.share, row.topic, 1, row.size)

    def _note_answers(self, share: str, topic: str, rows: int, size: int) -> None:
        self._state.rows.shares.note_answers(share, rows, size)
        self._state.topics.note_taken(topic)
        if self._state.topics.refused:
            self._resume(topic)

    def _tell_pause(self, topic: str, error: str, left_out: int | None) -> None:
        if left_out is not None:
            more = f"; {left_out:,} more topics were refused before" if left_out else ""
            logger.warning("Topic %s takes no messages now: %s%s", topic, error, more)

    def _resume(self, topic: str) -> None:
        """End the pause of a topic that was refused, if there is one."""
        pause = self._state.topics.resume(topic)
        if pause is not None:
            if pause.is_told:
                logger.info("Topic %s takes messages again", topic)
            self._state.resume_topics()
