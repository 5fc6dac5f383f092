"""What a call may spend on failures: which are tried again, how often or how long, and when.

A `Budget` is data. All of them stand below, beside those of a writer, which come from its
settings. `Spending` is what one call has spent.
"""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar

import psycopg

from dsql_outbox.outbox.failure import (
    CONFLICTS,
    OUTAGES,
    RACES,
    SERVER_TROUBLE,
    DatabaseFailure,
    FailureKind,
    Moved,
    classify,
)
from dsql_outbox.outbox.interrupt import is_interrupt

from .loops import do, do_async, perform, perform_async
from .primitives import Invoke, Program
from .work import Again, Work, settle

T = TypeVar("T")

_TRIES_LEFT: Final = 20
"""The least number of waits that fit into what is left of a call's time.

See docs/decisions/2026-11-28-conflicts-are-retried-until-the-time-is-over.md.
"""


class Budget(NamedTuple):
    """The errors after which work is tried again, and the waits in seconds before each try.

    `times` is the number of tries after the first one, or None if only the deadline of the
    call ends them. With `lasts`, the tries are not
    counted, and the last one begins at most so many seconds after the first failure. The
    wait after the first failure is `base`, or 0 if the first retry is `at_once`. It doubles
    with each failure. A random share of up to `jitter` is added, so that losers do not meet
    again. No wait is longer than `cap`, jitter included: the longest waits are spread below it.
    If only the deadline ends the tries, none is longer than a twentieth of the time left, but
    for the first: who has waited longest tries most often, else the newest call wins again.

    A failure that no budget has is not followed by another try.
    """

    again: Collection[FailureKind]
    times: int | None = 0
    base: float = 0.0
    cap: float = 2.0
    jitter: float = 0.25
    at_once: bool = False
    lasts: float | None = None

    @property
    def limit(self) -> float | None:
        """The number of retries, or the seconds that they last. None: until the deadline."""
        return self.times if self.lasts is None else self.lasts

    def wait(self, nth: int, random: Callable[[], float], left: float | None = None) -> float:
        """Return the wait after the `nth` failure, from 1, with `left` seconds to the deadline."""
        doublings = nth - 1 - self.at_once
        if doublings < 0:
            return 0.0
        cap = self.cap
        if self.limit is None and left is not None:
            cap = min(cap, max(left / _TRIES_LEFT, self.base * (1 + self.jitter)))
        # Limit the exponent: a float overflows at 2.0 ** 1024. The cap applies long before.
        delay = min(self.base * 2.0 ** min(doublings, 64), cap / (1 + self.jitter))
        return min(cap, delay * (1 + self.jitter * random()))

    def run(self, work: Callable[[], T]) -> T:
        """Run the work until it returns or the budget is spent.

        Raises the last error, and an error that the budget does not have immediately. The work must
        be a statement that may run twice, or a transaction whose errors come before COMMIT.
        """
        value: T = perform(self._retry(work), do)
        return value

    async def run_async(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run asynchronous work as `run` does."""
        value: T = await perform_async(self._retry(work), do_async)
        return value

    def _retry(self, work: Callable[[], Any]) -> Program[Any]:
        def invoked() -> Program[Any]:
            return (yield Invoke(lambda _: work(), None))

        return retry(invoked, Spending([self]))


class Spending:
    """What one call has spent of its budgets. Each failure counts against the first that fits.

    `deadline` is a time of the clock that `next_wait` gets. `random` returns 0 to 1. `last` is
    the index of the last failure's budget, `used` how many retries or seconds of it are spent,
    and `left` how many seconds the call had before its deadline, or None.
    A budget that `lasts` begins again when another failure shows that the database answers.
    """

    __slots__ = (
        "_began",
        "_budgets",
        "_counts",
        "_random",
        "deadline",
        "is_cut_short",
        "last",
        "left",
        "used",
    )

    def __init__(
        self,
        budgets: Sequence[Budget],
        deadline: float | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.deadline = deadline
        self.last: int | None = None
        self.used = 0.0
        self.left: float | None = None
        self.is_cut_short = False
        self._budgets = budgets
        self._random = random
        self._counts = [0] * len(budgets)
        self._began: float | None = None

    def count(self, nth: int) -> int:
        """Return how many failures counted against the `nth` budget, from 0."""
        return self._counts[nth]

    def next_wait(self, failure: DatabaseFailure, now: float) -> float | None:
        """Return the seconds before another try, or None to give up.

        `is_cut_short` is then whether the deadline of the call left no time for the wait.
        """
        self.left = None if self.deadline is None else max(0.0, self.deadline - now)
        wait = self._wait_after(failure.kind, now)
        late = wait is not None and self.left is not None and wait >= self.left
        self.is_cut_short = late
        return None if late else wait

    def _wait_after(self, kind: FailureKind, now: float) -> float | None:
        nth = next((n for n, each in enumerate(self._budgets) if kind in each.again), None)
        if nth is None:
            return None
        self.last, budget = nth, self._budgets[nth]
        if budget.lasts is None:
            self._end_outage()
        self._counts[nth] += 1
        count = self._counts[nth]
        if budget.lasts is None:
            most = count if budget.times is None else budget.times
            self.used = min(count, most)
            return budget.wait(count, self._random, self.left) if count <= most else None
        if self._began is None:
            self._began = now
        self.used = now - self._began
        # The server refuses connections: each earlier try would make that worse.
        crowded = kind is FailureKind.CROWDED
        wait = budget.cap if crowded else budget.wait(count, self._random)
        return wait if self.used + wait <= budget.lasts else None

    def _end_outage(self) -> None:
        if self._began is not None:
            self._began = None
            self._counts = [
                0 if budget.lasts is not None else count
                for budget, count in zip(self._budgets, self._counts, strict=True)
            ]


class BudgetedWork(Work, Generic[T]):
    """Work with one outcome: the value of an attempt, or an error when nothing is left to spend."""

    def __init__(self, spending: Spending) -> None:
        self.values: list[T] = []
        """The value, if there is one: it may be None."""
        self.error: Exception | None = None
        self._spending = spending

    @property
    def is_open(self) -> bool:
        """Whether there is neither a value nor an error."""
        return not self.values and self.error is None

    def decide(self, failure: DatabaseFailure) -> Program[Again]:
        """Try again after a wait, or end with the failure."""
        yield from ()
        wait = self._spending.next_wait(failure, monotonic())
        if wait is None:
            self.fail(failure.last_word)
            return Again()
        return Again([self], wait)

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.error = error

    def program(self) -> Program[T]:
        """Do the work. Return its value, or raise its error."""
        yield from settle(self)
        if self.error is not None:
            raise self.error
        return self.values[0]


class _Statement(BudgetedWork[T]):
    """Work that may run twice, so that no attempt is in doubt."""

    def __init__(self, work: Callable[[], Program[T]], spending: Spending) -> None:
        super().__init__(spending)
        self._work = work

    def attempt(self, *, fresh: bool) -> Program[DatabaseFailure | None]:
        del fresh  # the work takes its connection itself
        try:
            self.values.append((yield from self._work()))
        except (psycopg.Error, OSError, Moved) as error:
            if is_interrupt(error):
                raise
            return classify(error, sent=False)
        return None


def retry(work: Callable[[], Program[T]], spending: Spending) -> Program[T]:
    """Perform work that may run twice, until it returns or nothing is left to spend.

    Raises its last error.
    """
    return _Statement(work, spending).program()


# On Aurora DSQL a read conflicts too: once per session after a table was changed. That is told
# only once, and a wait may meet another change. So the first retry often comes at once.

AT_ONCE: Final = Budget(CONFLICTS, times=3)
"""Statements that rarely conflict, reads included."""

DOCTOR: Final = Budget(CONFLICTS | SERVER_TROUBLE, times=1)
"""A question of `doctor`, which tells what it finds."""

OPERATOR: Final = Budget(RACES, times=5, base=0.05, at_once=True)
"""The work of an operator. A collision is with another session that inserted the same key."""

INBOX: Final = Budget(CONFLICTS | OUTAGES, times=7, base=0.1)
"""A call of an inbox. The broker delivers the message again later."""

MIGRATION: Final = Budget(
    RACES | SERVER_TROUBLE | {FailureKind.EXISTS}, times=12, base=0.05, cap=1.0
)
"""A statement of a migration, for about 9 seconds.

PostgreSQL: two sessions that create the same thing collide in the catalog (COLLISION), find it
there (EXISTS), update it at once (INTERNAL), or deadlock (CONFLICT). DSQL: the schema was
updated by another transaction, or it is busy.
"""
