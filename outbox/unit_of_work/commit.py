"""The two ends of a transaction: BEGIN with the mark of a run, and COMMIT behind its guards.

A function of the user can end the transaction of its run and begin another one, or roll what
the run stored back to a savepoint, by any statement and through any cursor. Only the server
knows. So the text that ends the transaction of a run is ``SELECT ..; COMMIT``: its guards fail
unless the run's mark and its rows are there, and then the server does not run COMMIT.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus, TransactionStatus

from dsql_outbox.outbox.database.exchange import command, script, tag_of, with_literals
from dsql_outbox.outbox.errors import TransactionMisused

from .primitives import Exchange, Program

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

T = TypeVar("T")

_OPEN: Final = {TransactionStatus.INTRANS, TransactionStatus.INERROR}


class Guards(msgspec.Struct, frozen=True):
    """The statements of one schema at both ends of a run's transaction.

    They have the place ``%(run)s`` for the id of the run, and `own` has places for what the run
    has stored itself. A failed guard names what it found in a cast of text to a number.
    """

    mark: bytes
    of_mark: bytes
    own: bytes

    def begin_statements(self, connection: Any, run: str) -> list[bytes]:
        """Return the statements that begin a run's transaction."""
        mark = [with_literals(self.mark, {"run": run})] if connection.takes_local_settings else []
        return [connection.begin, *mark]

    def commit_statements(
        self, connection: Any, run: str, own: Mapping[str, str] | None
    ) -> list[bytes]:
        """Return the statements that end it. Without `own` it has stored nothing itself."""
        ours = (
            [with_literals(self.of_mark, {"run": run})] if connection.takes_local_settings else []
        )
        return [*ours, *([] if own is None else [with_literals(self.own, own)]), b"COMMIT"]


class GuardFailed(Exception):
    """A guard has failed by `error`, so COMMIT did not run. The transaction is rolled back."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def begin(
    connection: Any, guards: Guards, run: str, send: "Callable[[Sequence[bytes]], PQGen[T]]"
) -> Program[T]:
    """Begin the transaction of a run by `send`, which gets the statements.

    A server that refuses the mark, as Aurora DSQL does, gets none on this connection any more.
    """
    answer: T
    try:
        answer = yield Exchange(connection, send(guards.begin_statements(connection, run)))
    except errors.FeatureNotSupported:
        if not connection.takes_local_settings:
            raise
        yield from roll_back(connection)
        connection.takes_local_settings = False
        answer = yield Exchange(connection, send(guards.begin_statements(connection, run)))
    return answer


def commit(connection: Any, statements: Sequence[bytes] = (b"COMMIT",)) -> Program[None]:
    """Send statements of which the last is COMMIT, in one text.

    Raises `GuardFailed`, or the driver's error unless the answer says that COMMIT was done.
    """
    results = yield Exchange(connection, script(connection, b"; ".join(statements)))
    error = _error_of(connection, results[-1])
    if error is None:
        require_committed(tag_of(results[-1]))
    elif len(results) < len(statements) and error.sqlstate:
        yield from roll_back(connection)
        raise GuardFailed(error)
    else:  # of COMMIT, or libpq's own error of a lost connection
        raise error


def _error_of(connection: Any, result: "PGresult") -> psycopg.Error | None:
    if result.status != ExecStatus.FATAL_ERROR:
        return None
    return errors.error_from_result(result, connection.info.encoding)


def roll_back(connection: Any) -> Program[None]:
    """End an open transaction, if that is possible, so that the session is clean again.

    The keeper of the session looks whether it is: libpq refuses a ROLLBACK in a pipeline.
    """
    if connection.info.transaction_status in _OPEN:
        with suppress(psycopg.Error):
            yield Exchange(connection, command(connection, b"ROLLBACK"))


def require_committed(answer: str | None) -> None:
    """Raise unless the command tag that answers COMMIT is COMMIT.

    For an aborted transaction, the server answers ROLLBACK and reports no error. Any
    other answer leaves the outcome in doubt; the error for it has no SQLSTATE.
    """
    if answer == "COMMIT":
        return
    kind = errors.TransactionRollback if answer == "ROLLBACK" else psycopg.OperationalError
    raise kind(f"the database answered {answer} to COMMIT")


def require_transaction(
    connection: psycopg.BaseConnection[object], method: str, consequence: str
) -> None:
    """Raise `TransactionMisused` for a connection that would commit a statement on its own.

    While a statement is in flight, as in a pipeline, the status is ACTIVE in a transaction and
    without one. Then only a `transaction()` block shows that there is one, or that the
    connection is lent to the function of a run.
    """
    status = connection.info.transaction_status
    has_block = getattr(connection, "_num_transactions", 0) > 0  # psycopg shows it nowhere else
    is_lent = getattr(connection, "is_lent", False)
    is_active = status is TransactionStatus.ACTIVE
    is_open = has_block or is_lent if is_active else status != TransactionStatus.IDLE
    if connection.autocommit and not is_open:
        raise TransactionMisused(
            f"{method} needs an open transaction: this connection is in autocommit mode, "
            f"so {consequence} on its own; use `with connection.transaction():`, "
            'with SQLAlchemy an engine without isolation_level="AUTOCOMMIT", '
            "with Django `with transaction.atomic():`"
        )
