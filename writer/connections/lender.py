"""The connections that a writer lends to its calls. Threads and tasks wait in their own way."""

from abc import ABC, abstractmethod
from typing import Any, Generic

from dsql_outbox.outbox import Database, call_in_children

from .shelf import C, Shelf


class Lender(ABC, Generic[C]):
    """The connections of one writer, at most `limit` in use at once.

    After a failed attempt a connection is closed, unless it is healthy and
    `keep_failed` is set. A connection that was idle for more than `max_idle` seconds
    is not reused. No connection to a read-only server is.
    """

    def __init__(
        self, database: Database, limit: int, *, keep_failed: bool, max_idle: float | None
    ) -> None:
        self._database = database
        self._limit = limit
        self._keep_failed = keep_failed
        self._max_idle = max_idle
        self._begin()
        call_in_children(self._begin)

    def _begin(self) -> None:
        """Start without connections. In a forked child, leave the parent's connections alone."""
        self._shelf: Shelf[C] = Shelf(
            self._limit, keep_failed=self._keep_failed, max_idle=self._max_idle
        )

    def give_back(self, connection: C) -> None:
        """Take back a connection after a success."""
        if not connection.is_inherited:
            permit = self._permit_of(connection)
            try:
                self._shelf.keep(connection, permit)
            finally:
                self._leave(permit)

    def give_up(self, connection: C, error: BaseException) -> None:
        """Take back a connection whose attempt failed."""
        if not connection.is_inherited:
            permit = self._permit_of(connection)
            try:
                self._shelf.keep_or_drop(connection, permit, error)
            finally:
                self._leave(permit)

    def close(self) -> None:
        """Close the connections that are not in use now, and the others when they come back."""
        self._shelf.close()

    def _permit_of(self, connection: C) -> Any:
        return connection.permit

    @abstractmethod
    def _leave(self, permit: Any) -> None:
        """Free a permit, and let the next call have it."""
