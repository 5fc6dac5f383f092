"""The steps of one `transact` call, without I/O. `attempt.steps` describes the drivers.

Nothing is stored before COMMIT is sent, because the server rolls back when the
connection is lost. So only a failure at COMMIT leaves the outcome in doubt. Then the
first event of the lost run is looked up. If it is stored, that run was committed. If
not, the function runs again and must append the same event first. Of two runs, the
one that commits second collides.
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
    """A step: run the function in a transaction and commit it, on a new connection if `fresh`."""

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
    except Exception as error:  # noqa: BLE001 - the caller gets the error
        with suppress(Exception):  # a hook that caused the defect may raise again
            call.broken(error)
    except BaseException as error:
        call.abandon(error)
        raise


def _try(call: Call[Any], clock: _Clock, *, fresh: bool) -> _Steps:
    """Make one run, and wait after a failure."""
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
    """React to a failure: settle the call, or wait before another run."""
    suspect = run.collided() if failure.kind is FailureKind.COLLISION else None
    if failure.kind not in RETRIED:
        suspect = call.fence  # a lost run may have committed: report no failure then
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
        return failure._replace(kind=FailureKind.FATAL)  # the key of a table of the caller
    return failure
