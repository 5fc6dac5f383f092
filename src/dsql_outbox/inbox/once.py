"""One call of `once`: a function and the memory of its message in one transaction.

The call is a program, as the calls of a writer are: `Inbox` has it performed in a thread and
`AsyncInbox` in a task, so both share every decision.

Nothing is stored before COMMIT. The key of the remembered row is the fence: of two runs with
the same message, one finds the row of the other or conflicts with it. So after a lost COMMIT
the function runs again, unless the row says that the lost run committed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, Literal, TypeVar
from uuid import uuid4

import msgspec
import psycopg

from dsql_outbox.outbox import (
    INBOX,
    Database,
    Exchange,
    FunctionRun,
    Lender,
    MessageGap,
    NumberedQuery,
    Program,
    Spending,
    Verdict,
    commit,
    is_interrupt,
    numbered,
    pipeline,
    retried,
    roll_back,
    rows_of,
    schema_error,
    unprepared,
)
from dsql_outbox.schema import statement

from .received import Received

T = TypeVar("T")

Order = Literal["first", "next", "gap", "late", "replay"]
"""How a message relates to those of its subject that this consumer has handled.

``first``: none was handled, and the message is not the subject's first. ``next``: its
predecessor is the last one that was handled. ``gap``: messages between were not handled.
``late``: a later one was handled. ``replay``: sent again by an operator, outside the order.
"""

OnGap = Literal["run", "raise"]

_IN_DOUBT: Final = (
    "once: an earlier run may have been committed; when the message is delivered again, "
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
        self.schema = database.schema
        self.consumer = consumer
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


class OnceCall(Generic[T]):
    """One call of `once`. `function` gets the connection; `deadline` is a monotonic time."""

    def __init__(  # noqa: PLR0913 - the parts of a call
        self,
        statements: Statements,
        connections: Lender[Any],
        key: Mapping[str, str],
        message: Received | None,
        function: Callable[[Any], Any],
        *,
        on_gap: OnGap,
        deadline: float | None,
    ) -> None:
        self._statements = statements
        self._connections = connections
        self._key = dict(key)
        self._message = message
        self._function = function
        self._on_gap = on_gap
        self._deadline = deadline
        self._committing: dict[str, Handled[T]] = {}
        self._verdict: Verdict | None = None
        self._is_final = False

    def program(self) -> Program[Handled[T]]:
        """Run the function until it is committed, or known to have been."""
        spending = Spending([INBOX], self._deadline)
        try:
            return (yield from retried(self._attempt, partial(self._wait_after, spending)))
        except Exception as error:
            if self._committing:
                error.add_note(_IN_DOUBT)
            raise

    def _wait_after(self, spending: Spending, error: Exception) -> float | None:
        """Return the seconds until another run, or None for an error that ends the call."""
        verdict = self._verdict
        if self._is_final or (verdict is not None and verdict.is_functions):
            return None
        return spending.wait_after(error if verdict is None else verdict.error)

    def _attempt(self) -> Program[Handled[T]]:
        self._is_final, self._verdict = False, None
        return self._connections.lend(self._transaction, role_path=True, deadline=self._deadline)

    def _transaction(self, connection: Any) -> Program[Handled[T]]:
        try:
            return (yield from self._run(connection))
        except BaseException as error:
            if not is_interrupt(error):
                yield from roll_back(connection)
            raise

    def _run(self, connection: Any) -> Program[Handled[T]]:
        run_id = uuid4().hex
        order = yield from self._begin(connection, run_id)
        if isinstance(order, Handled):
            yield from roll_back(connection)
            return order
        run = FunctionRun("once")
        self._verdict = run.end((yield from run.call(connection, self._function)))
        if self._verdict is not None:
            raise self._verdict.told
        handled = Handled(ran=True, value=run.value, order=order)
        self._require_time()
        self._committing[run_id] = handled
        yield from commit(connection)
        return handled

    def _begin(self, connection: Any, run_id: str) -> Program[Order | Handled[T] | None]:
        """Begin and remember the message, in one round trip. Return its order.

        If it was remembered before, return the result of the call.
        """
        opening = self._opening(run_id)
        sent = [(query, query.encode(values)) for query, values in opening]
        begin = (unprepared(connection.begin), ())
        try:
            results = yield Exchange(connection, pipeline(connection, [begin, *sent]))
        except psycopg.Error as error:
            named = schema_error(error, self._statements.schema)
            if named is None:
                raise
            self._is_final = True
            raise named from error
        if not results[1].ntuples:
            return (yield from self._handled_before(connection))
        return self._order(results[2:])

    def _opening(self, run_id: str) -> list[tuple[NumberedQuery, Mapping[str, str]]]:
        remember = self._statements.remember, self._key | {"run_id": run_id}
        if not self._follows:
            return [remember]
        assert self._message is not None  # noqa: S101 - only a message follows another
        subject_type, subject_id = self._message.subject
        subject = {
            "consumer": self._statements.consumer,
            "source": self._message.source,
            "subject_type": subject_type,
            "subject_id": subject_id,
            "position": str(self._message.position),
        }
        return [remember, (self._statements.advance, subject)]

    @property
    def _follows(self) -> bool:
        """Whether the message has a place among the messages of its subject."""
        return self._message is not None and self._message.replay is None

    def _order(self, results: Sequence[Any]) -> Order | None:
        message = self._message
        if message is None or not results:
            return None if message is None else "replay"
        last = int(rows_of(results[0])[0][0] or 0)
        order = order_of(message, last)
        if order == "gap" and self._on_gap == "raise":
            self._is_final = True
            raise MessageGap(message.key, expected=message.previous_position, actual=last)
        return order

    def _handled_before(self, connection: Any) -> Program[Handled[T]]:
        """Return whether an earlier run of this call, or another call, has handled the message."""
        if self._committing:
            query = self._statements.find
            sent = [(query, query.encode(self._key))]
            results = yield Exchange(connection, pipeline(connection, sent))
            for (run_id,) in rows_of(results[0]):
                found = self._committing.get((run_id or b"").decode().replace("-", ""))
                if found is not None:
                    return found
        return Handled(ran=False)

    def _require_time(self) -> None:
        if self._deadline is not None and monotonic() >= self._deadline:
            raise psycopg.OperationalError(
                "COMMIT was not sent: the deadline of the call (timeout) has passed"
            )


def order_of(message: Received, last: int) -> Order:
    """Return the order of a message after the highest position that was handled, or 0."""
    if message.position <= last:
        return "late"
    if message.previous_position == last:
        return "next"
    return "gap" if last else "first"
