"""The transaction of a run: on a connection of the library, or on one of the caller's pool.

A run begins it, lends it to the function of the user, looks at its status, and commits it behind
the guards or rolls it back. How a connection does that is all that a `RunTransaction` knows;
`FunctionRun` and the body of the work decide.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.exchange import Row, Statements

from .commit import Guards
from .gate import Gate
from .primitives import Program

T = TypeVar("T")


class Watcher(Protocol):
    """The run, as its transaction tells it what the function does."""

    def refuse_outside(self, status: int) -> None:
        """Raise for a statement outside of the transaction."""
        ...

    def note_failure(self, error: Exception, before: int) -> None:
        """Record an error of the connection, and the transaction status `before` it."""
        ...

    def record_misuse(self, what: str, remedy: str) -> Exception:
        """Record a misuse, and return the exception that names it."""
        ...


class RunTransaction(ABC):
    """The transaction in which the function of a run runs."""

    @property
    @abstractmethod
    def status(self) -> TransactionStatus:
        """The status of the transaction. ACTIVE also for a statement that cannot be waited for."""

    @property
    @abstractmethod
    def is_lost(self) -> bool:
        """Whether the connection was lost, and not closed by the function."""

    @property
    @abstractmethod
    def role(self) -> str | None:
        """The database role that its connection logged in as, or None if it is not known."""

    @property
    def has_open_block(self) -> bool:
        """Whether the function has left a block of the driver's open."""
        return False

    def is_refusal(self, error: Exception) -> bool:  # noqa: ARG002 - of a session alone
        """Whether an error says that the function has misused its session before."""
        return False

    @property
    def aliases(self) -> Sequence[object]:
        """The other objects of the caller that stand for the transaction."""
        return ()

    @abstractmethod
    def begin(
        self, guards: Guards, run: str, statements: Statements = ()
    ) -> Program[Sequence[Row]]:
        """Begin it, with the mark of the run if the server takes one.

        Run statements of the library in it, before the function. Return the rows of the last one.
        """

    @abstractmethod
    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        """Run further statements of the library. Return the rows of the last one."""

    @abstractmethod
    def lent(self, run: Watcher) -> AbstractContextManager[Any]:
        """Yield what the function gets. It ends with the block."""

    @abstractmethod
    def commit(
        self, guards: Guards, run: str, own: Mapping[str, str] | None, gate: Gate
    ) -> Program[None]:
        """Commit it behind the guards of the run, if the gate admits that.

        Raises `GuardFailed`, or the driver's error unless the commit was confirmed.
        """

    @abstractmethod
    def roll_back(self) -> Program[None]:
        """Roll it back, if that is possible."""


class Sessions(ABC):
    """Lends sessions of the caller, from an engine or a pool, each for the transaction of a run."""

    @abstractmethod
    def lend(
        self,
        work: Callable[[RunTransaction], Program[T]],
        *,
        fresh: bool = False,
        role_path: bool = False,
        deadline: float | None = None,
    ) -> Program[T]:
        """Perform work in a session, and give its connection back.

        One that was lost, or met a conflict, is closed. `fresh` and `role_path` are for
        connections of the library.
        """
