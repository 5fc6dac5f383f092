"""The loop of every piece of work. The docstring of the package has its walk.

A body is a `Work`: the write of events, `transact`, `Inbox.once`, or a statement that may run
twice. It says what an attempt is, and what a failure means to it. `settle` has the order, which
is the same for all of them.

An attempt is sealed or open. Of a sealed one, all bytes are known before the first is sent.
In an open one a function of the user runs between BEGIN and COMMIT. Both run by `on_connection`. A
statement that may run twice (`budget.retry`) takes its connection itself, and is never in doubt.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from dsql_outbox.outbox.failure import RACES, DatabaseFailure, FailureKind, classify
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender

from . import faults
from .function_run import RunFailed
from .gate import Gate
from .primitives import Open, Program, Sleep
from .run_transaction import Sessions

T = TypeVar("T")


class Again(NamedTuple):
    """What follows a failure: these works, one after the other, after a wait in seconds.

    Usually it is the same work. A batch that cannot commit as a whole goes on in parts. Without
    works, nothing follows. Without a wait, the next attempt begins immediately. The connection
    `meanwhile` is opened while it waits.
    """

    works: "Sequence[Work]" = ()
    wait: float | None = None
    meanwhile: Open | None = None


class Work(ABC):
    """A piece of work in one transaction. The object keeps its outcome."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether it has no outcome yet."""

    def start_attempt(self) -> None:  # noqa: B027 - only some bodies count attempts
        """Note that another attempt begins."""

    def resolve_doubt(self) -> Program[DatabaseFailure | None]:
        """Ask what an earlier attempt stored that has no answer, and settle what it stored.

        Return why the question failed. An answer "nothing is stored" proves nothing, because the
        lost write or COMMIT may still arrive. So each attempt must collide with a lost one by a
        key.
        A body whose own first statement meets that key asks nothing here.
        """
        yield from ()
        return None

    @abstractmethod
    def attempt(self, *, fresh: bool) -> Program[DatabaseFailure | None]:
        """Make an attempt, on a connection that was never used if `fresh`. Settle a success."""

    def record_failure(self, failure: DatabaseFailure) -> None:  # noqa: B027 - as `start_attempt`
        """Note that an attempt failed. After one in doubt the work stays in doubt."""

    @abstractmethod
    def decide(self, failure: DatabaseFailure) -> Program[Again]:
        """Decide what follows a failure. Settle the work, or what of it gets no other attempt."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Settle the work with an error that is no failure of an attempt.

        It is a defect of the library or of a hook, or a turn that did not come.
        """

    def abandon(self, error: BaseException) -> None:  # noqa: B027 - as `start_attempt`
        """Note that nobody waits for the outcome any more, as after a cancellation."""


def next_connection(failure: DatabaseFailure, *, role_path: bool) -> Open | None:
    """Return the connection to open while a work waits, or None after an outage.

    After a conflict the database answers, so the next attempt need not wait for an opening too.
    After an outage, an opening is the attempt: it must not come before the wait is over.
    """
    return Open(True, role_path, None) if failure.kind in RACES else None


def settle(*works: Work, fresh: bool = False) -> Program[None]:
    """Attempt each work until it is settled.

    A defect settles the work that it came from, and the others go on. An interrupt, such as
    a cancellation, abandons all of them.
    """
    left = deque(works)
    while left:
        work = left.popleft()
        again = Again()
        try:
            failure = (yield from attempt_once(work, fresh=fresh)) if work.is_open else None
            if failure is not None and failure.kind is FailureKind.NOT_PREPARED:
                again = Again([work])
            elif failure is not None:
                again = yield from work.decide(failure)
            if again.wait is not None:
                # No connection is held now: the failed one was given up before this wait.
                yield Sleep(again.wait, again.meanwhile)
        except BaseException as error:
            if isinstance(error, Exception):
                with suppress(Exception):  # a hook that caused the defect may raise again
                    work.fail(error)
            if is_interrupt(error):
                for each in (work, *left):
                    each.abandon(error)
                raise
        left.extendleft(reversed(again.works))
        # Only the failed connection has to be replaced. The works behind may use the new one.
        fresh = bool(again.works)


def attempt_once(work: Work, *, fresh: bool) -> Program[DatabaseFailure | None]:
    """Make one attempt. Return its failure, or None if nothing is left to decide."""
    work.start_attempt()
    failure = yield from work.resolve_doubt()
    if failure is None and work.is_open:
        failure = yield from work.attempt(fresh=fresh)
    if failure is None or not work.is_open:
        return None
    work.record_failure(failure)
    return failure


def on_connection(  # noqa: PLR0913 - the parts of an attempt
    connections: Lender[Any] | Sessions,
    act: Callable[[Any], Program[T]],
    gate: Gate,
    *,
    fresh: bool = False,
    role_path: bool = False,
    translate: Callable[[Exception], Exception],
) -> Program[T | DatabaseFailure]:
    """Do an act on a connection. Return its result, or the meaning of its error.

    `translate` gives errors of the driver the library's name.
    """
    gate.sent = False  # an earlier attempt may have been sent, and its body knows
    try:
        result = yield from connections.lend(
            act, fresh=fresh, role_path=role_path, deadline=gate.deadline
        )
        if faults.active is not None and gate.sent:
            faults.active.after_answer()
        return result  # noqa: TRY300 - an injected fault is classified as the others
    except RunFailed as error:
        # A run has two errors: one decides whether it is tried again, one is for the caller.
        failure = classify(translate(error.verdict.error), sent=False)
        return failure._replace(for_caller=error.verdict.for_caller)
    except Exception as error:
        if is_interrupt(error):
            raise
        return classify(translate(error), sent=gate.sent)
