"""A transaction's way to its end as a sequence of steps, without any I/O.

A generator decides; its driver (`Writer` or `AsyncWriter`) does. The generator
yields what is to be done next and is sent what came of it, so threads and
tasks share every decision. One event or a batch of them go the same way; a
batch that cannot commit as a whole is split until every event is settled.

Once an attempt is in doubt, the call can only end in a receipt,
`DuplicateEvent` or `OutcomeUnknown`: a look-up that finds nothing proves
nothing, as the lost statement may still reach the server. Every later attempt
looks the event up first and then inserts the same id again; whichever insert
comes second collides, and the collision is looked up.
"""

import re
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from time import time_ns
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from dsql_outbox.outbox import OUTAGES, RACES, RETRIED, DatabaseFailure, FailureKind, classify

from .pending import Found, Pending, Stored


class Attempt(msgspec.Struct, frozen=True):
    """Write these events in one transaction; `fresh`: on a new connection."""

    batch: Sequence[Pending]
    fresh: bool


class LookUp(msgspec.Struct, frozen=True):
    """Read what is stored under these ids."""

    ids: Sequence[UUID]


class Wait(msgspec.Struct, frozen=True):
    """Let `seconds` pass, holding nothing."""

    seconds: float


class Committed(msgspec.Struct, frozen=True):
    """An attempt did it: what each of its events got."""

    stored: Sequence[Stored]


class Present(msgspec.Struct, frozen=True):
    """What a look-up found; absence proves nothing."""

    found: Mapping[UUID, Found]


class Failed(msgspec.Struct, frozen=True):
    """The step raised; `sent` tells whether a write may have reached the server."""

    error: Exception
    sent: bool = False


Step = Attempt | LookUp | Wait
Result = Committed | Present | Failed | None
Steps = Generator[Step, Result, None]
_Rest = Generator[Step, Result, Sequence[Pending]]
_Clock = Callable[[], float]

_BAD_CAST: Final = "22P02"
_STALE: Final = re.compile(r'"stale (?P<id>[0-9a-f-]{36}) (?P<actual>-?\d+)"')
"""What the write statements put into the failing cast; the server quotes it in any language."""


def write_steps(batch: Sequence[Pending], clock: _Clock, *, fresh: bool = False) -> Steps:
    """Settle every event of a batch; all share their history, as they are tried together.

    When something is thrown in, as by a cancelled caller, the events that are
    not settled are abandoned. A defect of our own code ends them too: what may
    be stored by then in `OutcomeUnknown`, the rest in the defect's exception.
    """
    try:
        while batch:
            batch = yield from _try(batch, clock, fresh=fresh)
            fresh = True
    except Exception as error:  # noqa: BLE001 - each caller gets it, with the truth about its event
        for pending in batch:
            with suppress(Exception):  # the defect may be a hook's, and come again
                pending.broken(error)
    except BaseException as error:
        for pending in batch:
            pending.abandon(error)
        raise


def interrupt(steps: Generator[Any, Result, None], known: Result, error: BaseException) -> None:
    """End steps by an error; they hear what was `known` of their last step before it."""
    with suppress(StopIteration):
        if known is not None:
            steps.send(known)
    steps.throw(error)


def _try(batch: Sequence[Pending], clock: _Clock, *, fresh: bool) -> _Rest:
    """One attempt and the wait after it; returns the events that need another."""
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
    """One attempt; returns the events that it did not settle, and how it failed."""
    started = time_ns()
    in_doubt = False
    for pending in batch:
        pending.begin()
        in_doubt = in_doubt or pending.in_doubt
    result: Result = None
    if in_doubt:
        result = yield _look_up(batch)
        if isinstance(result, Present):
            batch = _drop_resolved(batch, result, started)
    if not batch:
        return (), None
    if not isinstance(result, Failed):
        result = yield Attempt(batch, fresh)
    if isinstance(result, Committed):
        ended = time_ns()
        for pending, stored in zip(batch, result.stored, strict=True):
            pending.stored(stored, started, ended)
        return (), None
    failure = classified(result)
    for pending in batch:
        pending.failed(failure, started, time_ns())
    assert isinstance(result, Failed)  # noqa: S101 - else it is not classified
    return batch, result


def _sift(batch: Sequence[Pending], clock: _Clock) -> _Rest:
    """Find the events that a batch fails by again and again, and let the others go on.

    A failure that comes again may be an outage, or what one event does to the
    server (XX000): halves tell, without a wait between them. A single event that
    fails waits for its next attempt, and the events after it that share an entity
    with it wait behind it. So many failures in a row that one event cannot be the
    reason are an outage: what is left waits as one batch.
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
        left = [p for p in batch if p.outcome is None and (p in again or p in behind)]
        if parts:
            return left
        parts.extend([pending] for pending in left)
    return ()


def _apart(
    part: Sequence[Pending], earlier: Sequence[Pending]
) -> tuple[list[Pending], list[Pending]]:
    """Events that may be tried now, and those that must let an earlier event pass first."""
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
    """How often in a row one event of so many fails its part, twice as a margin."""
    return 2 * events.bit_length()


def _may_come_again(failed: Failed) -> bool:
    """Whether what was sent met a failure that is tried again, though it may be one event's."""
    return failed.sent and classified(failed).kind in OUTAGES


def _after(batch: Sequence[Pending], failed: Failed, clock: _Clock) -> _Rest:
    """What a failure leads to: nothing more, halves, or a wait and another attempt."""
    failure = classified(failed)
    if stale := _stale(batch, failure):
        return (yield from _after_stale(batch, *stale, failure, clock))
    if failure.kind is FailureKind.COLLISION:
        result = yield _look_up(batch)
        if isinstance(result, Present):
            rest = _drop_found(batch, result)
            if len(rest) < len(batch):
                return rest  # the collision is explained: no conflict, no wait
        else:
            failure = classified(result)
    if len(batch) > 1 and failure.kind not in RETRIED and _may_be_one_events_fault(failed):
        return (yield from _in_turn(_halves(batch), clock))
    return (yield from _wait(batch, failure, clock))


def _after_stale(
    batch: Sequence[Pending], pending: Pending, actual: int, failure: DatabaseFailure, clock: _Clock
) -> _Rest:
    """One event's subject is at another version than expected; the others go on.

    If an earlier event of the batch touches that subject, the version counts it
    in although it is not stored: what comes before goes first. After an attempt
    in doubt the version may have moved by that very attempt.
    """
    place = batch.index(pending)
    if any(earlier.touches_subject_of(pending) for earlier in batch[:place]):
        return (yield from _in_turn([batch[:place], batch[place:]], clock))
    if pending.in_doubt:
        result = yield _look_up([pending])
        if not isinstance(result, Present):
            return (yield from _wait(batch, classified(result), clock))
        _drop_found([pending], result)
    if pending.outcome is None:
        pending.stale(actual, failure)
    return [other for other in batch if other is not pending]


def _wait(batch: Sequence[Pending], failure: DatabaseFailure, clock: _Clock) -> _Rest:
    now, failures = clock(), _one_each(failure, len(batch))
    waits = [(p, p.next_wait(own, now)) for p, own in zip(batch, failures, strict=True)]
    again = [pending for pending, wait in waits if wait is not None]
    if not again:
        return ()
    seconds = max(wait for _, wait in waits if wait is not None)
    for pending in again:
        pending.waits(failure, seconds)
    yield Wait(seconds)
    if len(again) > 1 and failure.kind in RACES:
        return (yield from _in_turn(_after_conflict(again), clock))
    return again


def _in_turn(parts: Sequence[Sequence[Pending]], clock: _Clock) -> _Rest:
    """Each part goes its own way to the end, so that one event does not fail the others."""
    fresh = True
    for part in parts:
        yield from write_steps(part, clock, fresh=fresh)
        fresh = False  # the failed connection is gone; one that did well may go on
    return ()


def _after_conflict(batch: Sequence[Pending]) -> Sequence[Sequence[Pending]]:
    """Halves; but no event's last try depends on another event."""
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
    return [pending for pending in batch if pending.outcome is None]


def _drop_found(batch: Sequence[Pending], present: Present) -> Sequence[Pending]:
    for pending in batch:
        if pending.id in present.found:
            pending.found(present.found[pending.id])
    return [pending for pending in batch if pending.outcome is None]


def classified(result: Result) -> DatabaseFailure:
    """The failure that a step ended in."""
    if not isinstance(result, Failed):
        raise TypeError(f"a step cannot end in {result!r}")
    return classify(result.error, sent=result.sent)


def _one_each(failure: DatabaseFailure, events: int) -> list[DatabaseFailure]:
    """The failure for each event: its exception gets a note and a traceback, so none is shared."""
    copies = [failure._replace(error=_copy(failure.error)) for _ in range(events - 1)]
    return [failure, *copies]


def _copy(error: Exception) -> Exception:
    """Not `copy.copy`, which calls `__init__` with what may not be its arguments."""
    own = type(error).__new__(type(error), *error.args)
    own.__dict__.update(error.__dict__)
    own.__notes__ = list(getattr(error, "__notes__", ()))
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)


def _may_be_one_events_fault(failed: Failed) -> bool:
    """Whatever its SQLSTATE: one event's row may raise anything in the server, as by a trigger.

    What failed before the write was sent is no event's fault, but for a value that cannot be sent.
    """
    return failed.sent or isinstance(failed.error, (psycopg.DataError, ValueError))


def _stale(batch: Sequence[Pending], failure: DatabaseFailure) -> tuple[Pending, int] | None:
    """The event whose expected version did not hold, and the version it met."""
    found = _STALE.search(str(failure.error)) if failure.sqlstate == _BAD_CAST else None
    if found is None:
        return None
    pending = next((p for p in batch if str(p.id) == found["id"]), None)
    return None if pending is None else (pending, int(found["actual"]))
