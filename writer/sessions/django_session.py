"""Django's connection, as the session of a caller."""

from collections.abc import Callable, Sequence
from typing import Any

from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.writer.statement.answers import Row
from dsql_outbox.writer.statement.plain import Statements

from .caller_session import CallerSession, alone


class DjangoSession(CallerSession):
    """Django's connection, whose statements go to the driver's connection inside of it."""

    def __init__(self, given: Any, session_of: Callable[[Any], CallerSession]) -> None:
        self._given = given
        self._session_of = session_of

    def join(self) -> Program[None]:
        self._given.validate_no_broken_transaction()
        if self._given.connection is None:
            raise _outside()
        try:
            yield from self._inner.join()
        except TransactionMisused:
            raise _outside() from None

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        with self._given.wrap_database_errors:  # Django then looks at the connection before reuse
            return (yield from self._inner.run(statements))

    def send_failing(self) -> Program[bool]:
        """Fail the transaction, and let the block of `atomic` end in a rollback.

        An error of `append_to` does not pass through Django, which looks at no transaction
        status: its `on_commit` hooks would run.
        """
        if self._given.in_atomic_block:
            self._given.set_rollback(True)
        return self._given.connection is None or (yield from self._inner.send_failing())

    def cut(self) -> None:
        if self._given.connection is not None:
            self._inner.cut()

    @property
    def role(self) -> str | None:
        return self._inner.role

    def after_commit(self, ring: Callable[[], None]) -> Program[None]:
        self._given.on_commit(ring)
        yield from ()

    @property
    def _inner(self) -> CallerSession:
        return self._session_of(self._given.connection)


def _outside() -> TransactionMisused:
    why = "this connection is outside of atomic, in autocommit mode"
    return alone(why, "with Django `with transaction.atomic():`")
