"""Retries of work after a transient error: one policy, with a loop for threads and tasks."""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import sleep
from typing import Final, NamedTuple, TypeVar

import anyio
import psycopg

from .failure import CONFLICTS, FailureKind, Moved, kind_of

T = TypeVar("T")


class RetryPolicy(NamedTuple):
    """The errors after which work is tried again, and the wait before each try.

    `waits` are in seconds, before jitter. There is one more try than there are waits. The
    error of the last try is raised. An error that is not in `again` is raised immediately.
    The work must be a statement that may run twice, or a transaction whose errors come before
    COMMIT.
    """

    again: Collection[FailureKind]
    waits: Sequence[float]

    def next_wait(self, error: Exception, failures: int) -> float | None:
        """Return the seconds before the next try, or None to give up.

        `failures` is the number of failures before this one.
        """
        if failures >= len(self.waits) or kind_of(error) not in self.again:
            return None
        return self.waits[failures]

    def run(self, work: Callable[[], T]) -> T:
        """Run the work until it returns or the policy gives up. Raises the last error."""
        failures = 0
        while True:
            try:
                return work()
            except (psycopg.Error, Moved) as error:
                wait = self.next_wait(error, failures)
                if wait is None:
                    raise
            failures += 1
            sleep(jittered(wait))

    async def run_async(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run asynchronous work as `run` does."""
        failures = 0
        while True:
            try:
                return await work()
            except (psycopg.Error, Moved) as error:
                wait = self.next_wait(error, failures)
                if wait is None:
                    raise
            failures += 1
            await anyio.sleep(jittered(wait))


AT_ONCE: Final = RetryPolicy(CONFLICTS, waits=(0.0, 0.0, 0.0))
"""For statements that rarely conflict, reads included.

On Aurora DSQL a read conflicts too: once per session after a table was changed.
"""


def jittered(seconds: float) -> float:
    """Return a wait with a random share of up to 25 % added, so that losers do not meet again."""
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311 - not a secret
