"""The way of one `transact` call to its end, without any I/O; see `_steps` for the drivers.

Before COMMIT is sent nothing can be stored: the server rolls back what a lost
connection leaves behind. So only a failure at COMMIT leaves doubt. Then the
event that the lost run appended first is looked up: if it is there, that run
was committed. If not, the function runs again, and its first append is the same
event: whichever run commits second collides.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import msgspec

from dsql_outbox.outbox import RETRIED, DatabaseFailure, FailureKind, classify
from dsql_outbox.writer.attempt.steps import Committed, Failed, LookUp, Present, Result, Wait

from .call import Call
from .run import Run


class Execute(msgspec.Struct, frozen=True):
    """Run the function in a transaction and commit it; `fresh`: on a new connection."""

    run: Run[Any]
    fresh: bool


_Steps = Generator[LookUp | Execute | Wait, Result, None]
_Clock = Callable[[], float]


def transact_steps(call: Call[Any], clock: _Clock) -> _Steps:
    """Run the function until the call is settled."""
    fresh = False
    try:
        while not call.is_settled:
            yield from _try(call, clock, fresh=fresh)
            fresh = True
    except Exception as error:  # noqa: BLE001 - the caller gets it, with the truth about the commit
        with suppress(Exception):  # the defect may be a hook's, and come again
            call.broken(error)
    except BaseException as error:
        call.abandon(error)
        raise


def _try(call: Call[Any], clock: _Clock, *, fresh: bool) -> _Steps:
    """One run, and the wait after it."""
    run = call.begin()
    result: Result = None
    if call.fence is not None:
        result = yield LookUp([call.fence])
        if isinstance(result, Present):
            call.resolve(result.found.get(call.fence), call.fence)
    if call.is_settled:
        return
    if not isinstance(result, Failed):
        result = yield Execute(run, fresh)
    if isinstance(result, Committed):
        call.committed(run)
    else:
        failure = _classified(run, result)
        call.failed(run, failure)
        yield from _after(call, run, failure, clock)


def _after(call: Call[Any], run: Run[Any], failure: DatabaseFailure, clock: _Clock) -> _Steps:
    """What a failure leads to: an end, or a wait before another run."""
    suspect = run.collided() if failure.kind is FailureKind.COLLISION else None
    if failure.kind not in RETRIED:
        suspect = call.fence  # the caller must not hear of a failure if a lost run did it
    if suspect is not None:
        result = yield LookUp([suspect])
        if isinstance(result, Present):
            call.resolve(result.found.get(suspect), suspect)
        elif failure.kind is FailureKind.COLLISION:
            failure = _classified(run, result)
    if call.is_settled:
        return
    wait = call.next_wait(failure, clock()) if _may_run_again(call, failure) else None
    if wait is None:
        call.give_up(run.error or failure.error)
    else:
        yield Wait(wait)


def _may_run_again(call: Call[Any], failure: DatabaseFailure) -> bool:
    return failure.kind in RETRIED and not (call.in_doubt and call.fence is None)


def _classified(run: Run[Any], result: Result) -> DatabaseFailure:
    if not isinstance(result, Failed):
        raise TypeError(f"a run cannot end in {result!r}")
    if run.is_callers_error:
        return DatabaseFailure(FailureKind.FATAL, result.error, None, None)
    failure = classify(result.error, sent=result.sent)
    if failure.kind is FailureKind.COLLISION and run.collided() is None:
        return failure._replace(kind=FailureKind.FATAL)  # a unique key of the caller's own
    return failure
