"""One call of `once`: a function and the memory of its message in one transaction.

The call is a program, as the calls of a writer are: `Inbox` has it performed in a thread and
`AsyncInbox` in a task, so both share every decision.

Nothing is stored before COMMIT. The key of the remembered row is the fence: of two runs with
the same message, one finds the row of the other or conflicts with it. So after a lost COMMIT
the function runs again, unless the row says that the lost run committed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import msgspec
import psycopg

from dsql_outbox.outbox.database.exchange import (
    pipeline,
    rows_of,
    unprepared,
)
from dsql_outbox.outbox.errors import MessageGap
from dsql_outbox.outbox.failure import DatabaseFailure, FailureKind
from dsql_outbox.outbox.unit_of_work.budget import INBOX, BudgetedWork, Spending
from dsql_outbox.outbox.unit_of_work.commit import begin, roll_back
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.function_run import FunctionRun
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnTransaction
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program
from dsql_outbox.outbox.unit_of_work.work import on_connection

from .memory import Order, Remembered, Statements, last_position, order_of
from .received import Received

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

T = TypeVar("T")

OnGap = Literal["run", "raise"]

_IN_DOUBT: Final = (
    "once: an earlier execution may have been committed; when the message is delivered again, "
    "the inbox decides"
)


class Handled(msgspec.Struct, Generic[T], frozen=True):
    """The result of `once`.

    `ran` is whether the function ran in this call and was committed; `value` is what it
    returned. Without, the message was handled before, and has no `order`.
    """

    ran: bool
    value: T | None = None
    order: Order | None = None


class _Run(FunctionRun):
    """A run that remembers the message by this key."""

    def __init__(self, key: Mapping[str, str]) -> None:
        super().__init__("once")
        self._key = key

    @property
    def own(self) -> Mapping[str, str]:
        """The memory of the message, for the guard of it."""
        return {**self._key, "run_id": self.id}


class OnceCall(BudgetedWork[Handled[T]]):
    """One call of `once`. `function` gets the connection."""

    def __init__(  # noqa: PLR0913 - the parts of a call
        self,
        statements: Statements,
        connections: Lender[Any],
        key: Mapping[str, str],
        message: Remembered,
        function: Callable[[Any], Any],
        *,
        on_gap: OnGap,
        timeout: float | None,
    ) -> None:
        self._gate = Gate(timeout)
        super().__init__(Spending([INBOX], self._gate.deadline))
        self._statements = statements
        self._connections = connections
        self._key = dict(key)
        self._message = message
        self._function = function
        self._on_gap = on_gap
        self._run = _Run(self._key)
        self._order: Order | None = None
        self._lost: dict[str, Handled[T]] = {}
        """The results of the runs in doubt, by run id."""

    def start_attempt(self) -> None:
        """Begin another run, with an id of its own."""
        self._run, self._order = _Run(self._key), None

    def attempt(self, *, fresh: bool) -> Program[DatabaseFailure | None]:
        """Run the function in a transaction, unless the message was handled before."""
        del fresh  # a connection that survived a failure is as good: it was rolled back
        handled = yield from on_connection(
            self._connections,
            self._transaction,
            self._gate,
            role_path=True,
            translate=self._statements.translate,
        )
        if isinstance(handled, DatabaseFailure):
            return handled
        self.values.append(handled)
        return None

    def record_failure(self, failure: DatabaseFailure) -> None:
        """Keep the result of a run in doubt: the next run finds its row, if it committed."""
        if failure.kind is FailureKind.IN_DOUBT:
            self._lost[self._run.id] = self._result

    def fail(self, error: Exception) -> None:
        """End the call with an error, which says so if a run is in doubt."""
        super().fail(error)
        if self._lost:
            error.add_note(_IN_DOUBT)

    @property
    def _result(self) -> Handled[T]:
        return Handled(ran=True, value=self._run.value, order=self._order)

    def _transaction(self, connection: Any) -> Program[Handled[T] | DatabaseFailure]:
        order = yield from self._begin(connection)
        if isinstance(order, (Handled, DatabaseFailure)):
            yield from roll_back(connection)
            return order
        self._order = order
        guards = self._statements.guards
        transaction = OwnTransaction(connection)
        failure = yield from self._run.complete(transaction, self._function, self._gate, guards)
        return failure or self._result

    def _begin(self, connection: Any) -> Program[Order | Handled[T] | DatabaseFailure]:
        """Begin and remember the message, in one round trip. Return its order.

        If it was remembered before, return the result of the call.
        """
        query, values = self._statements.remembering(self._message, self._run.own)
        sent = query, query.encode(values)

        def send(texts: Sequence[bytes]) -> "PQGen[list[PGresult]]":
            return pipeline(connection, [*((unprepared(text), ()) for text in texts), sent])

        try:
            results = yield from begin(connection, self._statements.guards, self._run.id, send)
        except psycopg.Error:
            # An inbox keeps connections that are healthy. One in a failed transaction is not.
            yield from roll_back(connection)
            raise
        rows = rows_of(results[-1])
        order = order_of(self._message, rows)
        if order is None:
            return (yield from self._earlier_result(connection))
        if order == "gap" and self._on_gap == "raise":
            return self._gap(last_position(rows))
        return order

    def _gap(self, last: int) -> DatabaseFailure:
        message = self._message
        assert isinstance(message, Received)  # noqa: S101 - only a message follows another
        gap = MessageGap(message.key, expected=message.previous_position, actual=last)
        return DatabaseFailure(FailureKind.FATAL, gap, None, None)

    def _earlier_result(self, connection: Any) -> Program[Handled[T]]:
        """Return whether an earlier run of this call, or another call, has handled the message."""
        if self._lost:
            query = self._statements.find
            sent = [(query, query.encode(self._key))]
            results = yield Exchange(connection, pipeline(connection, sent))
            for (run_id,) in rows_of(results[0]):
                found = self._lost.get((run_id or b"").decode().replace("-", ""))
                if found is not None:
                    return found
        return Handled(ran=False)
