"""Django's connection, as the session of a caller."""

from collections.abc import Callable, Sequence
from typing import Any

from dsql_outbox.outbox.database.exchange import Row, Statements
from dsql_outbox.outbox.errors import TransactionMisused
from dsql_outbox.outbox.unit_of_work.primitives import Program

from .caller_session import CallerSession, Joining


class DjangoSession(CallerSession):
    """Django's connection, whose statements go to the driver's connection inside of it."""

    def __init__(
        self, given: Any, joining: Joining, session_of: Callable[[Any, Joining], CallerSession]
    ) -> None:
        super().__init__(joining)
        self._given = given
        self._session_of = session_of

    def join(self) -> Program[None]:
        self._given.validate_no_broken_transaction()
        if self._given.connection is None:
            raise self._outside()
        try:
            yield from self._inner.join()
        except TransactionMisused:
            raise self._outside() from None

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        with self._given.wrap_database_errors:  # Django then looks at the connection before reuse
            return (yield from self._inner.run(statements))

    def send_failing(self) -> Program[bool]:
        """Fail the transaction, and let the block of `atomic` end in a rollback.

        An error of ours does not pass through Django, which looks at no transaction
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
        return self._session_of(self._given.connection, self.joining)

    def _outside(self) -> TransactionMisused:
        why = "this connection is outside of atomic, in autocommit mode"
        return self.joining.alone(why, "with Django `with transaction.atomic():`")
