"""The write of events, from the first attempt until every event is settled. No I/O.

A batch of events takes the same steps as one event. A batch that cannot commit as a whole is
split until every event is settled.

After an attempt in doubt, the call can end only in a receipt, `DuplicateEvent`, `OutcomeUnknown`,
or `StaleVersion` if its subject is beyond the expected version. A look-up that finds nothing
proves nothing, because the lost statement may still reach the server. So every later attempt
first looks the event up and then inserts the same id again. Of two inserts, the second collides,
and the collision is looked up.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from time import monotonic, time_ns
from uuid import UUID

import psycopg

from dsql_outbox.outbox.failure import OUTAGES, RACES, RETRIED, DatabaseFailure, FailureKind
from dsql_outbox.outbox.unit_of_work.primitives import Program, Sleep
from dsql_outbox.outbox.unit_of_work.work import Again, Work, attempt_once, next_connection, settle
from dsql_outbox.writer.statement.answers import Found, stale_version

from .acts import Acts
from .entity_turn import EntityTurn
from .pending import Pending, still_open


class EventWrite(Work):
    """A batch of events in one transaction, or in parts. Each attempt counts for all its events.

    With a `turn`, the call takes the turn of its entities after a conflict, before it waits.

    While an act is performed, a call may end at its deadline or by cancellation, unless its
    event is sent. Such an event leaves the batch.
    """

    def __init__(
        self,
        batch: Sequence[Pending],
        acts: Acts,
        turn: EntityTurn | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._batch = batch
        self._acts = acts
        self._turn = turn
        self._clock = clock
        self._began_ns = 0
        self._sent_ns = 0
        self._is_repeated = False

    @property
    def is_open(self) -> bool:
        """Whether an event has no outcome yet."""
        return any(pending.is_open for pending in self._batch)

    def start_attempt(self) -> None:
        """Count another attempt for each event."""
        self._began_ns = self._sent_ns = time_ns()
        batch = still_open(self._batch)
        self._is_repeated = any(pending.journal.attempts for pending in batch)
        for pending in batch:
            pending.journal.count_attempt()

    def resolve_doubt(self) -> Program[DatabaseFailure | None]:
        """Look the events up if an earlier attempt of one is in doubt."""
        batch = still_open(self._batch)
        if not any(pending.in_doubt for pending in batch):
            return None
        found = yield from self._acts.look_up([pending.id for pending in batch])
        if isinstance(found, DatabaseFailure):
            return found
        ended = time_ns()
        for pending in still_open(batch):
            if pending.id in found:
                pending.settle_resolved(found[pending.id], self._began_ns, ended)
        return None

    def attempt(self, *, fresh: bool) -> Program[DatabaseFailure | None]:
        """Write the events in one transaction."""
        batch = still_open(self._batch)
        self._sent_ns = time_ns()
        result = yield from self._acts.write(batch, fresh=fresh)
        sent = still_open(batch)  # without those that left before the others were sent
        if isinstance(result, DatabaseFailure):
            self._acts.tell_transaction_end(sent, result, self._sent_ns)
            return result
        ended = time_ns()
        self._acts.tell_stored(sent, self._began_ns, ended)
        for pending, stored in zip(sent, result, strict=True):
            pending.settle_stored(stored, self._began_ns, ended)
        self._acts.tell_transaction_end(sent, None, self._sent_ns)
        return None

    def record_failure(self, failure: DatabaseFailure) -> None:
        """Record a failed attempt for each event."""
        for pending in still_open(self._batch):
            pending.record_failure(failure, self._began_ns, time_ns())

    def decide(self, failure: DatabaseFailure) -> Program[Again]:
        """Settle the events, split the batch, or wait for another attempt."""
        if self._is_repeated and len(still_open(self._batch)) > 1 and _may_come_again(failure):
            return (yield from self._sift())
        return (yield from self._decide_and_tell(failure))

    def fail(self, error: Exception) -> None:
        """Settle each event: with `OutcomeUnknown` if it may be stored, else with the defect."""
        for pending in self._batch:
            with suppress(Exception):  # a hook that caused the defect may raise again
                pending.fail(error)

    def abandon(self, error: BaseException) -> None:
        """Report for each event that its caller is gone."""
        for pending in self._batch:
            pending.abandon(error)

    def _decide_and_tell(self, failure: DatabaseFailure) -> Program[Again]:
        """Decide what follows a failure, and report it."""
        batch = still_open(self._batch)
        again = yield from self._decide(batch, failure)
        if again.works and failure.kind is FailureKind.CONFLICT and self._turn is not None:
            entities = [each for pending in still_open(batch) for each in pending.entities]
            if not (yield from self._turn.take(entities)):
                _give_up(still_open(batch), failure)
                again = Again()
        if again.works:
            self._acts.leave_lane()
        return again

    def _decide(self, batch: Sequence[Pending], failure: DatabaseFailure) -> Program[Again]:
        if stale := _stale_event(batch, failure):
            return (yield from self._settle_stale(batch, *stale, failure))
        first = failure
        if failure.kind is FailureKind.COLLISION:
            found = yield from self._look_up(batch)
            batch = still_open(batch)
            if isinstance(found, DatabaseFailure):
                failure = found
            elif len(rest := _drop_found(batch, found)) < len(batch):
                return self._go_on_with([rest])  # a stored event explains the collision: no wait
        if len(batch) > 1 and failure.kind not in RETRIED and _may_be_one_events_fault(first):
            return self._go_on_with(_halves(batch))
        return self._again_within_budget(batch, failure)

    def _settle_stale(
        self, batch: Sequence[Pending], pending: Pending, actual: int, failure: DatabaseFailure
    ) -> Program[Again]:
        """Settle the event whose subject is not at the expected version; go on with the others.

        If an earlier event of the batch touches that subject, the reported version
        includes it although it was rolled back. Then the events before this one are written
        first. The event itself may have changed the version, by an attempt in doubt or by an
        earlier call, so it is looked up.
        """
        place = batch.index(pending)
        if any(earlier.touches_subject_of(pending) for earlier in batch[:place]):
            return self._go_on_with([batch[:place], batch[place:]])
        found = yield from self._look_up([pending])
        if isinstance(found, DatabaseFailure):
            return self._again_within_budget(batch, found)
        if _drop_found(still_open([pending]), found):
            pending.settle_stale(actual, failure)
        return self._go_on_with([[other for other in batch if other is not pending]])

    def _sift(self) -> Program[Again]:
        """Find the events that make a batch fail repeatedly, and store the others.

        A repeated failure is either an outage or the effect of one event on the server
        (XX000). To distinguish them, try halves of the batch, without a wait in between. A
        single event that fails waits for its next attempt. Later events that share an
        entity with it wait behind it. If more attempts fail in a row than one event can
        explain, it is an outage: the remaining events wait as one batch.
        """
        self._acts.leave_lane()
        batch = still_open(self._batch)
        parts: deque[Sequence[Pending]] = deque(_halves(batch))
        while parts:
            failure: DatabaseFailure | None = None
            suspects, behind = list[Pending](), list[Pending]()
            patience = _failures_by_one(len(batch))
            while parts and patience:
                now, waits = _apart(parts.popleft(), [*suspects, *behind])
                behind += waits
                if not now:
                    continue
                part = self._part(now)
                failed = yield from attempt_once(part, fresh=True)
                if failed is None:
                    # The server works, so the failures in a row begin again.
                    patience = _failures_by_one(len(batch))
                elif not _may_come_again(failed):
                    yield from _carry_out((yield from part._decide_and_tell(failed)))  # noqa: SLF001 - its own kind
                else:
                    failure, patience = failed, patience - 1
                    left = still_open(now)
                    if len(left) > 1:
                        parts.extendleft(reversed(_halves(left)))
                    else:
                        suspects += left
            suspects += chain.from_iterable(parts)
            waiting, seconds = self._spend_budgets(suspects, failure) if failure else ((), None)
            if seconds is not None:
                yield Sleep(seconds)
            rest = [p for p in still_open(batch) if p in waiting or p in behind]
            if parts:
                return self._go_on_with([rest])
            parts.extend([pending] for pending in rest)
        return Again()

    def _again_within_budget(self, batch: Sequence[Pending], failure: DatabaseFailure) -> Again:
        """Let the events whose budgets allow it wait for another attempt. Settle the others."""
        again, seconds = self._spend_budgets(batch, failure)
        # A change of the schema concerns the session, so no single event is at fault.
        is_race = failure.kind in RACES and failure.kind is not FailureKind.SCHEMA_CHANGED
        parts = _after_conflict(again) if is_race and len(again) > 1 else [again]
        meanwhile = next_connection(failure, role_path=False)
        return self._go_on_with(parts)._replace(wait=seconds, meanwhile=meanwhile)

    def _spend_budgets(
        self, batch: Sequence[Pending], failure: DatabaseFailure
    ) -> tuple[Sequence[Pending], float | None]:
        """Return the events that are tried again, and after how long: the longest of their waits.

        The others are settled with the failure, each with a copy of its exception.
        """
        now = self._clock()
        waits = [(each, each.journal.next_wait(failure, now)) for each in still_open(batch)]
        _give_up([pending for pending, wait in waits if wait is None], failure)
        again = {pending: wait for pending, wait in waits if wait is not None}
        if not again:
            return (), None
        slowest = max(again, key=again.__getitem__)
        for pending in again:
            pending.journal.record_wait(again[slowest])
        slowest.journal.tell_retry(failure, len(again))
        return [*again], again[slowest]

    def _look_up(self, batch: Sequence[Pending]) -> Program[Mapping[UUID, Found] | DatabaseFailure]:
        self._acts.leave_lane()
        return self._acts.look_up([pending.id for pending in batch])

    def _go_on_with(self, parts: Sequence[Sequence[Pending]]) -> Again:
        """Go on with each part by itself, so that one event does not make the others fail."""
        return Again([self._part(part) for part in parts if part])

    def _part(self, batch: Sequence[Pending]) -> "EventWrite":
        return EventWrite(batch, self._acts, self._turn, self._clock)


def _carry_out(again: Again) -> Program[None]:
    if again.wait is not None:
        yield Sleep(again.wait, again.meanwhile)
    yield from settle(*again.works, fresh=True)


def _apart(
    part: Sequence[Pending], earlier: Sequence[Pending]
) -> tuple[list[Pending], list[Pending]]:
    """Split a part into events that may be tried now and events that wait for an earlier one."""
    taken = {entity for pending in earlier for entity in pending.entities}
    free, behind = list[Pending](), list[Pending]()
    for pending in part:
        if taken.isdisjoint(pending.entities):
            free.append(pending)
        else:
            behind.append(pending)
            taken |= pending.entities
    return free, behind


def _failures_by_one(events: int) -> int:
    """Return how many halves in a row one event of so many can make fail, times 2 as a margin."""
    return 2 * events.bit_length()


def _may_come_again(failure: DatabaseFailure) -> bool:
    """Return whether the failure is retried as an outage although one event may cause it."""
    return failure.sent and failure.kind in OUTAGES


def _give_up(batch: Sequence[Pending], failure: DatabaseFailure) -> None:
    """Settle these events with the failure, each with a copy of its exception."""
    if batch and failure.kind in RETRIED:
        batch[0].journal.tell_end_of_retries(failure, len(batch))
    for pending, own in zip(batch, _one_each(failure, len(batch)), strict=True):
        pending.give_up(own)


def _after_conflict(batch: Sequence[Pending]) -> Sequence[Sequence[Pending]]:
    """Split a batch after a conflict: into single events before a last try, else into halves.

    So the last try of an event does not depend on another event.
    """
    if any(pending.journal.is_last_try for pending in batch):
        return [[pending] for pending in batch]
    return _halves(batch)


def _halves(batch: Sequence[Pending]) -> Sequence[Sequence[Pending]]:
    middle = len(batch) // 2
    return [batch[:middle], batch[middle:]]


def _drop_found(batch: Sequence[Pending], found: Mapping[UUID, Found]) -> Sequence[Pending]:
    """Settle the events that are stored. Return the others."""
    for pending in batch:
        if pending.id in found:
            pending.settle_found(found[pending.id])
    return still_open(batch)


def _one_each(failure: DatabaseFailure, events: int) -> list[DatabaseFailure]:
    """Return one failure per event, each with a copy of the exception.

    Each caller's exception gets its own note and traceback.
    """
    copies = [failure._replace(error=_copy(failure.error)) for _ in range(events - 1)]
    return [failure, *copies][:events]


def _copy(error: Exception) -> Exception:
    """Copy an exception. `copy.copy` calls `__init__`, whose arguments may differ from `args`."""
    own = type(error).__new__(type(error), *error.args)
    own.__dict__.update(error.__dict__)
    own.__notes__ = list(getattr(error, "__notes__", ()))
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)


def _may_be_one_events_fault(failure: DatabaseFailure) -> bool:
    """Return whether one event may have caused the failure, whatever its SQLSTATE.

    After the write was sent, the row of one event may raise any error, as by a trigger.
    Before, an event is the cause only if one of its values cannot be sent.
    """
    return failure.sent or isinstance(failure.error, (psycopg.DataError, ValueError))


def _stale_event(batch: Sequence[Pending], failure: DatabaseFailure) -> tuple[Pending, int] | None:
    """Return the event whose subject is not at the expected version, and the actual version."""
    found = stale_version(failure.error)
    if found is None:
        return None
    event_id, actual = found
    pending = next((p for p in batch if p.id == event_id), None)
    return None if pending is None else (pending, actual)
