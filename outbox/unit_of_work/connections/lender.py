"""The connections that an owner lends to its calls. Threads and tasks wait in their own way."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Generic, Literal, TypeVar

import psycopg

from dsql_outbox.observability.facts import PoolCounts
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.unit_of_work.primitives import Open, Program

from .shelf import TOO_LATE, C, Opening, Shelf, Waiter

T = TypeVar("T")

Owner = Literal["writer", "inbox"]
"""The kind of object that lends the connections, for its error messages."""


class Lender(ABC, Generic[C]):
    """The connections of one owner, at most `limit` open or being opened at once.

    A connection whose session is not clean is closed. After a failed attempt any connection is,
    unless `keep_failed` is set or the error is a unique violation. One that was idle for more than
    `max_idle` seconds is not reused. No connection to a read-only server is.

    An opening has no deadline but the limits of `Database`. If the call that asked for it is
    gone, the next call gets the connection.
    """

    def __init__(
        self,
        owner: Owner,
        database: Database,
        limit: int,
        *,
        keep_failed: bool,
        max_idle: float | None,
    ) -> None:
        self._owner: Owner = owner
        self._database = database
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._start_empty()
        call_in_children(self._start_empty)

    def _start_empty(self) -> None:
        """Start without connections. In a forked child, leave the parent's connections alone."""
        self._shelf: Shelf[C] = Shelf(
            self._limit, keep_failed=self._keep_failed, max_idle=self._max_idle
        )

    def lend(
        self,
        work: Callable[[C], Program[T]],
        *,
        fresh: bool = False,
        role_path: bool = False,
        deadline: float | None = None,
    ) -> Program[T]:
        """Perform work on a connection; see `Open`. Take it back after a success or an error."""
        connection = yield Open(fresh, role_path, deadline)
        try:
            answer = yield from work(connection)
        except BaseException as error:
            try:
                self.take_back_failed(connection, error)
            except BaseException:  # an interrupt
                self._shelf.lose(connection)
                raise
            raise
        try:
            self.take_back(connection)
        except BaseException:
            self._shelf.lose(connection)
            raise
        return answer

    def borrow(self) -> C | None:
        """Lend a connection that nobody needs now, without a wait; None if there is none.

        Give it back by `take_back` or `take_back_failed`.
        """
        return self._shelf.borrow()

    def may_open(self) -> bool:
        """Whether a connection would be opened for a call that asks now."""
        counts = self.counts()
        return counts.idle + counts.used + counts.waiting < counts.limit

    def counts(self) -> PoolCounts:
        """Count the connections and the calls that wait for one."""
        return self._shelf.counts()

    def take_back(self, connection: C) -> None:
        """Take back a connection after a success."""
        if not connection.is_inherited:  # else it is the parent's, and stands on another shelf
            try:
                self._shelf.keep(connection)
            finally:
                self._serve()

    def take_back_failed(self, connection: C, error: BaseException) -> None:
        """Take back a connection whose attempt failed."""
        if not connection.is_inherited:
            try:
                self._shelf.keep_or_drop(connection, error)
            finally:
                self._serve()

    def close(self) -> None:
        """Close the connections that are not in use now, and the others when they come back.

        Openings that no call waits for end soon.
        """
        self._shelf.close()
        self._serve()

    def _ask(self, waiter: Waiter[C]) -> None:
        self._shelf.ask(waiter)
        if not waiter.is_answered:
            self._serve()

    @contextmanager
    def _open_meanwhile(self, wanted: Open) -> Generator[None]:
        """Open during the block, which is a wait, what a call wants after it."""
        if self._keep_failed:  # it may have one that was used
            yield
            return
        try:
            self._begin(partial(self._shelf.foresee, role_path=wanted.role_path))
            yield
        finally:
            self._shelf.end_wait(role_path=wanted.role_path)

    def _leave(self, waiter: Waiter[C]) -> None:
        """End a wait, and let the next call have what this one got too late."""
        try:
            self._shelf.leave(waiter)
        finally:
            self._serve()

    def _answer(self, waiter: Waiter[C], deadline: float | None) -> C:
        """Return the connection that a call has waited for, or raise the reason for none."""
        if waiter.error is not None:
            raise waiter.error
        if waiter.connection is None:
            raise self._shelf.none_in_time(waiter, self._owner)
        connection = waiter.connection
        connection.deadline = deadline
        # A function would run twice for each statement that its session has lost.
        if connection.role_path and not self._shelf.keeps_prepared:
            connection.prepares = False
        return connection

    def _serve(self) -> None:
        """Let each call have what it can have now. Begin the openings that are missing."""
        self._begin(self._shelf.serve)
        for opening in self._shelf.surplus():
            self._abandon(opening)

    def _begin(self, choose: Callable[[list[Opening]], None]) -> None:
        """Begin the openings that the shelf chooses. One that an interrupt prevents does not count.

        No call must wait for a connection that nobody opens.
        """
        chosen: list[Opening] = []
        try:
            choose(chosen)
            for opening in chosen:
                self._start(opening)
        except BaseException:
            self._shelf.forget(chosen)
            raise

    @abstractmethod
    def _start(self, opening: Opening) -> None:
        """Open a connection beside the calls, and give it to the shelf."""

    @abstractmethod
    def _abandon(self, opening: Opening) -> None:
        """End an opening soon."""


def require_time(deadline: float | None) -> None:
    """Raise `OperationalError` after the deadline: the outcome of a write would be in doubt."""
    if deadline is not None and monotonic() >= deadline:
        raise psycopg.OperationalError(TOO_LATE)


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until the deadline, at least a millisecond, or None without one."""
    return None if deadline is None else max(0.001, deadline - monotonic())
