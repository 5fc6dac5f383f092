"""The port to the session of a caller. No I/O."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import msgspec

from dsql_outbox.outbox.database.exchange import NumberedQuery, Row, Statements
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.unit_of_work.function_run import run_of
from dsql_outbox.outbox.unit_of_work.primitives import Program

FAIL_SECONDS: Final = 5.0
"""How long a task waits for the answer to the statement that fails a transaction.

Then it ends the connection.
"""


class Joining(msgspec.Struct, frozen=True):
    """A method that joins the transaction of a caller, in the words of its errors.

    `owner` is the class that has it; the one for asyncio has the same name behind ``Async``.
    The method stores `what`, which is `stored` then. `failing` is a statement that fails the
    transaction in which it runs.
    """

    owner: str
    method: str
    what: str
    stored: str
    failing: str

    @property
    def consequence(self) -> str:
        """What would happen in a session that commits each statement."""
        return f"the {self.what} would be {self.stored}"

    def alone(self, why: str, instead: str) -> TransactionMisused:
        """Return the error for a session that would commit a statement on its own."""
        return TransactionMisused(
            f"{self.method} needs an open transaction: {why}, so {self.consequence} on its own; "
            f"use {instead}"
        )


class CallerSession(ABC):
    """A connection or session of a caller, with the transaction that a method joins.

    Its methods are programs, so one class serves threads and tasks.
    """

    def __init__(self, joining: Joining) -> None:
        self.joining = joining

    @abstractmethod
    def join(self) -> Program[None]:
        """Find the caller's transaction. SQLAlchemy begins one, as for any statement.

        Raises `TransactionMisused` if the session would commit a statement on its own.
        """

    @abstractmethod
    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        """Run statements in the transaction. Return the rows of the last one."""

    def fail(self) -> Program[None]:
        """Keep the transaction from any COMMIT, after an error of the method.

        A caller who swallows the error would otherwise commit the rows without their event, or
        the effect of a message without its memory.
        A ROLLBACK would not do: what the caller writes next would be committed alone. Without an
        answer to the statement that fails, as if another task has the connection or this one is
        cancelled again, the connection is ended: no COMMIT can follow then.
        """
        has_failed = False
        try:
            with suppress(Exception):  # the error of the method is the one that is raised
                has_failed = yield from self.send_failing()
        finally:
            if not has_failed:
                with suppress(Exception):  # such as of a connection that is gone
                    self.cut()

    @abstractmethod
    def send_failing(self) -> Program[bool]:
        """Send a statement that fails, unless the transaction has failed already, or none is open.

        Return whether nothing of the transaction can be committed now.
        """

    @abstractmethod
    def cut(self) -> None:
        """End the connection now, and wait for nothing."""

    @property
    @abstractmethod
    def role(self) -> str | None:
        """The database role that the joined session logged in as, or None if it is not known."""

    def after_commit(self, ring: Callable[[], None]) -> Program[None]:  # noqa: ARG002 - of the port
        """Have `ring` called after the COMMIT, by a session that tells of it. Others do nothing."""
        yield from ()


def refuse_commit(
    given: object,
    error: BaseException,
    joining: Joining,
    session_of: Callable[[Any, Joining], CallerSession],
) -> Program[None]:
    """Keep a run or the caller's transaction from its COMMIT, after an error of a method in it.

    In a thread an interrupt may end this as well: then it is to be done again.
    """
    if (run := run_of(given)) is not None:
        run.note_refused(error, joining.method)
        return
    with suppress(TypeError):  # it is no session at all, as the caller is told
        yield from session_of(given, joining).fail()


class HiddenText(str):
    """A parameter whose `repr` tells nothing.

    SQLAlchemy writes the parameters of a statement into its log and its errors, and asyncpg and
    the loggers of a caller may write them as well. An event is nothing for any of them.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def named_parameters(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the parameters for a statement with ``%(name)s``, hidden."""
    return {name: None if value is None else HiddenText(value) for name, value in values.items()}


def numbered_parameters(query: NumberedQuery, values: Mapping[str, str | None]) -> list[str | None]:
    """Return the parameters for a statement with ``$1``, hidden."""
    given = [values[name] for name in query.parameters]
    return [None if value is None else HiddenText(value) for value in given]


@lru_cache(maxsize=64)
def text_of(statement: bytes) -> str:
    """Return the text of a statement, the same object each time: caches of drivers hash it."""
    return statement.decode()
