"""Run work again after an error that passes: one decision, a loop for threads, one for tasks."""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import sleep
from typing import Final, NamedTuple, TypeVar

import anyio
import psycopg

from .failure import CONFLICTS, FailureKind, Moved, kind_of

T = TypeVar("T")


class RetryPolicy(NamedTuple):
    """Which errors are followed by another try, and after how long.

    `waits` are seconds before jitter. There is one try more than there are waits; the
    error of the last one is raised, and an error of another meaning at once. The work
    must be a statement that may run twice, or a transaction that raises before COMMIT.
    """

    again: Collection[FailureKind]
    waits: Sequence[float]

    def next_wait(self, error: Exception, failures: int) -> float | None:
        """Seconds before the next try, or None to give up; `failures` came before this one."""
        if failures >= len(self.waits) or kind_of(error) not in self.again:
            return None
        return self.waits[failures]

    def run(self, work: Callable[[], T]) -> T:
        """Run the work until it returns."""
        failures = 0
        while True:
            try:
                return work()
            except (psycopg.Error, Moved) as error:
                wait = self.next_wait(error, failures)
                if wait is None:
                    raise
            failures += 1
            sleep(_jittered(wait))

    async def run_async(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run the work until it returns, for tasks."""
        failures = 0
        while True:
            try:
                return await work()
            except (psycopg.Error, Moved) as error:
                wait = self.next_wait(error, failures)
                if wait is None:
                    raise
            failures += 1
            await anyio.sleep(_jittered(wait))


AT_ONCE: Final = RetryPolicy(CONFLICTS, waits=(0.0, 0.0, 0.0))
"""For statements whose conflicts are rare and pass, reads among them.

On Aurora DSQL a statement that only reads meets a conflict too: once in each session
after a table was changed.
"""


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311 - jitter, no secret
