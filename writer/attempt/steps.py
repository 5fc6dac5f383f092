"""The steps of a write, from its first attempt until every event is settled. No I/O.

The generator yields the next step, and `programs` performs it and sends back its
result. A batch of events takes the same steps as one event. A batch that
cannot commit as a whole is split until every event is settled.

After an attempt in doubt, the call can end only in a receipt, `DuplicateEvent`
or `OutcomeUnknown`. A look-up that finds nothing proves nothing, because the lost
statement may still reach the server. So every later attempt first looks the event
up and then inserts the same id again. Of two inserts, the second collides, and the
collision is looked up.
"""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from time import time_ns
from uuid import UUID

import msgspec
import psycopg

from dsql_outbox.outbox import OUTAGES, RACES, RETRIED, DatabaseFailure, FailureKind, classify
from dsql_outbox.writer.statement.answers import Found, Stored, stale_version

from .pending import Pending


class Attempt(msgspec.Struct, frozen=True):
    """A step: write these events in one transaction, on a new connection if `fresh`."""

    batch: Sequence[Pending]
    fresh: bool


class LookUp(msgspec.Struct, frozen=True):
    """A step: read what is stored under these ids."""

    ids: Sequence[UUID]


class Wait(msgspec.Struct, frozen=True):
    """A step: wait for `seconds` without a connection."""

    seconds: float


class Committed(msgspec.Struct, frozen=True):
    """The result of an attempt that committed: what each event got, in order."""

    stored: Sequence[Stored]


class Present(msgspec.Struct, frozen=True):
    """The result of a look-up. An id that is absent may still be stored later."""

    found: Mapping[UUID, Found]


class Failed(msgspec.Struct, frozen=True):
    """The result of a step that raised. With `sent`, a write may have reached the server."""

    error: Exception
    sent: bool = False


Step = Attempt | LookUp | Wait
Result = Committed | Present | Failed | None
Steps = Generator[Step, Result, None]
_Rest = Generator[Step, Result, Sequence[Pending]]
_Clock = Callable[[], float]


def write_steps(batch: Sequence[Pending], clock: _Clock, *, fresh: bool = False) -> Steps:
    """Settle every event of a batch. Each attempt counts for all its events.

    If an exception is thrown in, as by a cancelled caller, the events that are not
    settled are abandoned. A defect of the library settles them too: events that may be
    stored with `OutcomeUnknown`, the others with the exception of the defect.

    While a step is performed, a call may end at its deadline or by cancellation, unless its
    event is sent. Such an event leaves the batch.
    """
    try:
        while batch := still_open(batch):
            batch = yield from _try(batch, clock, fresh=fresh)
            fresh = True
    except Exception as error:  # noqa: BLE001 - every caller gets the error
        for pending in batch:
            with suppress(Exception):  # a hook that caused the defect may raise again
                pending.broken(error)
    except BaseException as error:
        for pending in batch:
            pending.abandon(error)
        raise


def still_open(batch: Sequence[Pending]) -> list[Pending]:
    """Return the events of a batch whose calls have not ended, in order."""
    return [pending for pending in batch if pending.is_open]


def _try(batch: Sequence[Pending], clock: _Clock, *, fresh: bool) -> _Rest:
    """Make one attempt, wait after a failure, and return the events that need another."""
    was_tried = any(pending.was_tried for pending in batch)
    batch, failed = yield from _attempt(batch, fresh=fresh)
    if failed is None:
        return ()
    if was_tried and len(batch) > 1 and _may_come_again(failed):
        return (yield from _sift(batch, clock))
    return (yield from _after(batch, failed, clock))


def _attempt(
    batch: Sequence[Pending], *, fresh: bool
) -> Generator[Step, Result, tuple[Sequence[Pending], Failed | None]]:
    """Make one attempt. Return the events that it did not settle, and its failure."""
    started = time_ns()
    in_doubt = False
    batch = still_open(batch)
    for pending in batch:
        pending.begin()
        in_doubt = in_doubt or pending.in_doubt
    result: Result = None
    if in_doubt:
        result = yield _look_up(batch)
        batch = still_open(batch)
        if isinstance(result, Present):
            batch = _drop_resolved(batch, result, started)
    if batch and not isinstance(result, Failed):
        result = yield Attempt(batch, fresh)
        batch = still_open(batch)  # without those that left before the others were sent
    if not batch:
        return (), None
    if isinstance(result, Committed):
        ended = time_ns()
        for pending, stored in zip(batch, result.stored, strict=True):
            pending.stored(stored, started, ended)
        return (), None
    failure = classified(result)
    for pending in batch:
        pending.failed(failure, started, time_ns())
    assert isinstance(result, Failed)  # noqa: S101 - classified() raises for any other result
    return batch, result


def _sift(batch: Sequence[Pending], clock: _Clock) -> _Rest:
    """Find the events that make a batch fail repeatedly, and store the others.

    A repeated failure is either an outage or the effect of one event on the server
    (XX000). To distinguish them, try halves of the batch, without a wait in between. A
    single event that fails waits for its next attempt. Later events that share an
    entity with it wait behind it. If more attempts fail in a row than one event can
    explain, it is an outage: the remaining events wait as one batch.
    """
    parts: deque[Sequence[Pending]] = deque(_halves(batch))
    while parts:
        failed = None
        suspects, behind = list[Pending](), list[Pending]()
        patience = _failures_by_one(len(batch))
        while parts and patience:
            part, waits = _apart(parts.popleft(), [*suspects, *behind])
            behind += waits
            if not part:
                continue
            left, failure = yield from _attempt(part, fresh=True)
            if failure is None:
                patience = _failures_by_one(len(batch))
            elif not _may_come_again(failure):
                rest = yield from _after(left, failure, clock)
                yield from write_steps(rest, clock, fresh=True)
            else:
                failed, patience = failure, patience - 1
                if len(left) > 1:
                    parts.extendleft(reversed(_halves(left)))
                else:
                    suspects += left
        suspects += chain.from_iterable(parts)
        again = (yield from _wait(suspects, classified(failed), clock)) if failed else ()
        left = [p for p in still_open(batch) if p in again or p in behind]
        if parts:
            return left
        parts.extend([pending] for pending in left)
    return ()


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


def _may_come_again(failed: Failed) -> bool:
    """Return whether the failure is retried as an outage although one event may cause it."""
    return failed.sent and classified(failed).kind in OUTAGES


def _after(batch: Sequence[Pending], failed: Failed, clock: _Clock) -> _Rest:
    """React to a failure: settle the events, split the batch, or wait for another attempt."""
    failure = classified(failed)
    if stale := _stale(batch, failure):
        return (yield from _after_stale(batch, *stale, failure, clock))
    if failure.kind is FailureKind.COLLISION:
        result = yield _look_up(batch)
        batch = still_open(batch)
        if isinstance(result, Present):
            rest = _drop_found(batch, result)
            if len(rest) < len(batch):
                return rest  # a stored event explains the collision, so retry without a wait
        else:
            failure = classified(result)
    if len(batch) > 1 and failure.kind not in RETRIED and _may_be_one_events_fault(failed):
        return (yield from _in_turn(_halves(batch), clock))
    return (yield from _wait(batch, failure, clock))


def _after_stale(
    batch: Sequence[Pending], pending: Pending, actual: int, failure: DatabaseFailure, clock: _Clock
) -> _Rest:
    """Settle the event whose subject is not at the expected version; return the others.

    If an earlier event of the batch touches that subject, the reported version
    includes it although it was rolled back. Then the events before this one are written
    first. After an attempt in doubt, that attempt itself may have changed the version,
    so the event is looked up.
    """
    place = batch.index(pending)
    if any(earlier.touches_subject_of(pending) for earlier in batch[:place]):
        return (yield from _in_turn([batch[:place], batch[place:]], clock))
    if pending.in_doubt:
        result = yield _look_up([pending])
        if not isinstance(result, Present):
            return (yield from _wait(batch, classified(result), clock))
        _drop_found(still_open([pending]), result)
    if pending.is_open:
        pending.stale(actual, failure)
    return [other for other in batch if other is not pending]


def _wait(batch: Sequence[Pending], failure: DatabaseFailure, clock: _Clock) -> _Rest:
    now = clock()
    waits = [(pending, pending.next_wait(failure, now)) for pending in still_open(batch)]
    _give_up([pending for pending, wait in waits if wait is None], failure)
    again = {pending: wait for pending, wait in waits if wait is not None}
    if not again:
        return ()
    slowest = max(again, key=again.__getitem__)
    seconds = again[slowest]
    for pending in again:
        pending.waits(seconds)
    slowest.tell_retry(failure, len(again))
    yield Wait(seconds)
    # A change of the schema concerns the session, so no single event is at fault.
    if len(again) > 1 and failure.kind in RACES and failure.kind is not FailureKind.SCHEMA_CHANGED:
        return (yield from _in_turn(_after_conflict([*again]), clock))
    return [*again]


def _give_up(batch: Sequence[Pending], failure: DatabaseFailure) -> None:
    """Settle these events with the failure, each with a copy of its exception."""
    if batch and failure.kind in RETRIED:
        batch[0].tell_end_of_retries(failure, len(batch))
    for pending, own in zip(batch, _one_each(failure, len(batch)), strict=True):
        pending.give_up(own)


def _in_turn(parts: Sequence[Sequence[Pending]], clock: _Clock) -> _Rest:
    """Settle each part by itself, so that one event does not make the others fail."""
    fresh = True
    for part in parts:
        yield from write_steps(part, clock, fresh=fresh)
        fresh = False  # only the failed connection had to be replaced
    return ()


def _after_conflict(batch: Sequence[Pending]) -> Sequence[Sequence[Pending]]:
    """Split a batch after a conflict: into single events before a last try, else into halves.

    So the last try of an event does not depend on another event.
    """
    if any(pending.is_last_try for pending in batch):
        return [[pending] for pending in batch]
    return _halves(batch)


def _halves(batch: Sequence[Pending]) -> Sequence[Sequence[Pending]]:
    middle = len(batch) // 2
    return [batch[:middle], batch[middle:]]


def _look_up(batch: Sequence[Pending]) -> LookUp:
    return LookUp([pending.id for pending in batch])


def _drop_resolved(batch: Sequence[Pending], present: Present, started: int) -> Sequence[Pending]:
    ended = time_ns()
    for pending in batch:
        if pending.id in present.found:
            pending.resolved(present.found[pending.id], started, ended)
    return still_open(batch)


def _drop_found(batch: Sequence[Pending], present: Present) -> Sequence[Pending]:
    for pending in batch:
        if pending.id in present.found:
            pending.found(present.found[pending.id])
    return still_open(batch)


def classified(result: Result) -> DatabaseFailure:
    """Return the meaning of a failed step."""
    if not isinstance(result, Failed):
        raise TypeError(f"a step cannot end in {result!r}")
    return classify(result.error, sent=result.sent)


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


def _may_be_one_events_fault(failed: Failed) -> bool:
    """Return whether one event may have caused the failure, whatever its SQLSTATE.

    After the write was sent, the row of one event may raise any error, as by a trigger.
    Before, an event is the cause only if one of its values cannot be sent.
    """
    return failed.sent or isinstance(failed.error, (psycopg.DataError, ValueError))


def _stale(batch: Sequence[Pending], failure: DatabaseFailure) -> tuple[Pending, int] | None:
    """Return the event whose subject is not at the expected version, and the actual version."""
    found = stale_version(failure.error)
    if found is None:
        return None
    event_id, actual = found
    pending = next((p for p in batch if p.id == event_id), None)
    return None if pending is None else (pending, actual)
