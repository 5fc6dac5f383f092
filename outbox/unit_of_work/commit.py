"""The end of a transaction: COMMIT and the answer to it, or ROLLBACK."""

from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.exchange import command

from .primitives import Exchange, Program

_OPEN: Final = {TransactionStatus.INTRANS, TransactionStatus.INERROR}


def commit(connection: Any) -> Program[None]:
    """Send COMMIT. Raises unless the answer says that it was done."""
    require_committed((yield Exchange(connection, command(connection, b"COMMIT"))))


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
    """Raise `ProgrammingError` for a connection that would commit a statement on its own.

    While a statement is in flight, as in a pipeline, the status is ACTIVE in a transaction and
    without one. Then only a `transaction()` block shows that there is one.
    """
    status = connection.info.transaction_status
    has_block = getattr(connection, "_num_transactions", 0) > 0  # psycopg shows it nowhere else
    is_open = has_block if status is TransactionStatus.ACTIVE else status != TransactionStatus.IDLE
    if connection.autocommit and not is_open:
        raise psycopg.ProgrammingError(
            f"{method} needs an open transaction: this connection is in autocommit mode, "
            f"so {consequence} on its own; use `with connection.transaction():`, "
            'with SQLAlchemy an engine without isolation_level="AUTOCOMMIT", '
            "with Django `with transaction.atomic():`"
        )
