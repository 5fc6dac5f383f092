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

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    numbered,
    pipeline,
    rows_of,
    unprepared,
)
from dsql_outbox.outbox.errors import MessageGap
from dsql_outbox.outbox.failure import DatabaseFailure, FailureKind, schema_error
from dsql_outbox.outbox.unit_of_work.budget import INBOX, BudgetedWork, Spending
from dsql_outbox.outbox.unit_of_work.commit import begin, roll_back
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.function_run import FunctionRun
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnTransaction
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program
from dsql_outbox.outbox.unit_of_work.work import on_connection
from dsql_outbox.schema.missing_rights import missing_right
from dsql_outbox.schema.named_statements import guards, statement

from .received import Received

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

T = TypeVar("T")

Order = Literal["first", "next", "gap", "late", "replay"]
"""How a message relates to those of its subject that this consumer has handled.

``first``: none was handled, and the message is not the subject's first. ``next``: its
predecessor is the last one that was handled. ``gap``: messages between were not handled.
``late``: a later one was handled. ``replay``: sent again by an operator, outside the order.
"""

OnGap = Literal["run", "raise"]

_IN_DOUBT: Final = (
    "once: an earlier execution may have been committed; when the message is delivered again, "
    "the inbox decides"
)


class Handled(msgspec.Struct, Generic[T], frozen=True):
    """The result of `once`.

    `ran` is whether the function ran in this call and was committed; `value` is what it
    returned. Without, the message was handled before. `order` is None for a call without
    a `Received` message, and for one that was handled before.
    """

    ran: bool
    value: T | None = None
    order: Order | None = None


class Statements:
    """The statements of one consumer's inbox."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self.consumer = consumer
        self.guards = guards(database.schema, "inbox_guard")
        self.remember, self.find, self.advance, self.page, self.forget = (
            numbered(name, statement(name, database.schema))
            for name in (
                "inbox_remember",
                "inbox_find",
                "inbox_advance",
                "inbox_page",
                "inbox_forget",
            )
        )

    def translate(self, error: Exception) -> Exception:
        """Return `SchemaError` or `MissingRight` for an error that is one, others unchanged."""
        named = schema_error(error, self._database.schema)
        return named or missing_right(error, self._database, "consumer") or error


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
        message: Received | None,
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

    def _begin(self, connection: Any) -> Program[Order | Handled[T] | DatabaseFailure | None]:
        """Begin and remember the message, in one round trip. Return its order.

        If it was remembered before, return the result of the call.
        """
        opening = self._opening_statements()
        sent = [(query, query.encode(values)) for query, values in opening]

        def send(texts: Sequence[bytes]) -> "PQGen[list[PGresult]]":
            return pipeline(connection, [*((unprepared(text), ()) for text in texts), *sent])

        try:
            results = yield from begin(connection, self._statements.guards, self._run.id, send)
        except psycopg.Error:
            # An inbox keeps connections that are healthy. One in a failed transaction is not.
            yield from roll_back(connection)
            raise
        remembered, *others = results[-len(sent) :]
        if not remembered.ntuples:
            return (yield from self._earlier_result(connection))
        return self._place(others)

    def _opening_statements(self) -> list[tuple[NumberedQuery, Mapping[str, str]]]:
        remember = self._statements.remember, self._run.own
        if not self._follows:
            return [remember]
        assert self._message is not None  # noqa: S101 - only a message follows another
        subject = {
            "consumer": self._statements.consumer,
            "source": self._message.source,
            "subject_type": self._message.subject_type,
            "subject_id": self._message.subject_id,
            "position": str(self._message.position),
        }
        return [remember, (self._statements.advance, subject)]

    @property
    def _follows(self) -> bool:
        """Whether the message has a place among the messages of its subject."""
        return self._message is not None and self._message.replay is None

    def _place(self, results: Sequence[Any]) -> Order | DatabaseFailure | None:
        message = self._message
        if message is None or not results:
            return None if message is None else "replay"
        last = int(rows_of(results[0])[0][0] or 0)
        order = order_of(message, last)
        if order == "gap" and self._on_gap == "raise":
            gap = MessageGap(message.key, expected=message.previous_position, actual=last)
            return DatabaseFailure(FailureKind.FATAL, gap, None, None)
        return order

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


def order_of(message: Received, last: int) -> Order:
    """Return the order of a message after the highest position that was handled, or 0."""
    if message.position <= last:
        return "late"
    if message.previous_position == last:
        return "next"
    return "gap" if last else "first"
