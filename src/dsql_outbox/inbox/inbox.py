"""The inbox for synchronous code: threads, scripts and Lambda functions."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, overload

from dsql_outbox.outbox.arguments import require_seconds, wrong_type
from dsql_outbox.outbox.database.database import Database, require_database, used_by
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.sessions.caller_session import refuse_commit
from dsql_outbox.outbox.sessions.joinable import Joinable, session_of
from dsql_outbox.outbox.sessions.lent_sessions import SessionSource, sessions_of
from dsql_outbox.outbox.settings import require_positive, require_whole
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.connections.thread_connections import Connections
from dsql_outbox.outbox.unit_of_work.loops import do, perform
from dsql_outbox.outbox.unit_of_work.own_transaction import OwnSessions
from dsql_outbox.outbox.unit_of_work.run_transaction import Sessions

from .memory import ONCE, REMEMBER, Order, Remembered, Statements, remember
from .once import Handled, OnceCall, OnGap, Run, causing
from .pruning import Pruned, Pruning

if TYPE_CHECKING:
    import psycopg
    from typing_extensions import TypeVar as DefaultedTypeVar

    S = DefaultedTypeVar("S", default=psycopg.Connection[Any])
else:
    S = TypeVar("S")

T = TypeVar("T")
M = TypeVar("M", bound=Remembered)

TIMEOUT: Final = 30.0
"""Seconds. SQS and NATS deliver a message again when it is not acknowledged for so long."""

_CONSUMER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Inbox(Generic[S]):
    """Remembers the messages that a consumer has handled. Safe to share among threads.

    `consumer` names the consumer: 1 to 64 of ``A-Z a-z 0-9 . _ -``. All its processes use
    the same name. The constructor does no I/O. Close an inbox by `with` or `close`.

    With `sessions`, a sessionmaker of SQLAlchemy 2 or psycopg's ConnectionPool, the functions get
    new sessions of it, or connections of the pool, as the function of `transact` does. They must
    lead to the database of the inbox's tables. The driver of the engine is psycopg or psycopg2.
    Without it they get connections that the inbox opens, of which it has `max_connections`.

    Raises `SettingsError` for another name or for `max_connections` below 1, and `TypeError` for
    other `sessions`.
    """

    @overload
    def __init__(
        self: "Inbox[psycopg.Connection[Any]]",
        database: Database,
        consumer: str,
        *,
        max_connections: int = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        database: Database,
        consumer: str,
        *,
        sessions: SessionSource[S],
        max_connections: int = ...,
    ) -> None: ...

    def __init__(
        self, database: Database, consumer: str, *, sessions: Any = None, max_connections: int = 10
    ) -> None:
        self._statements = open_statements("Inbox", database, consumer, max_connections)
        self._connections = Connections(
            "inbox", used_by("inbox", database), max_connections, keep_failed=True, max_idle=None
        )
        self._sessions = lent_by(self._connections, sessions, database, is_async=False)

    def once(
        self,
        message: Remembered,
        function: Callable[[S], T],
        *,
        on_gap: OnGap = "run",
        timeout: float | None = TIMEOUT,
    ) -> Handled[T]:
        """Run `function` and remember the message in one transaction, unless it was handled.

        `function` gets the connection of the transaction, or a session. It should do nothing else
        than statements on it: after a conflict or a lost connection it runs again. It must not
        commit or roll back. An error of its own ends the call after a rollback. With
        `Writer.append_to`, an event is part of the transaction. A session is flushed at the end.
        Its events have the headers ``correlationid`` and ``causationid`` of the message.

        `message` is a `Received` message or an id of 1 to 128 characters. A `Received`
        message is remembered by its source and its event's id, so a replay of a handled event
        is not handled again; give `dedupe_id` to handle each replay. Of a `Received` message
        the result also has the `order` in its subject. With ``on_gap="raise"`` a message whose
        predecessor was not handled raises `MessageGap`, and nothing is stored.

        `timeout` is the limit of the call in seconds, waits included. Raises the driver's
        exception, unchanged, when it is over, or conflicts or an outage last longer than
        the retries; then leave the message to the broker to deliver it again. Raises
        `SchemaError` if the tables are missing, `MissingRight` and `TransactionMisused`. An
        error after a COMMIT without an answer has a note that an earlier execution may have been
        committed.
        """
        require_plain("once", function)
        invoke = partial(_invoke_each, "once", lambda session, _: function(session))
        (handled,) = self._handle("once", [message], invoke, on_gap, timeout)
        if isinstance(handled, Exception):
            raise handled
        return handled

    def once_many(
        self,
        messages: Iterable[M],
        function: Callable[[S, M], T],
        *,
        on_gap: OnGap = "run",
        timeout: float | None = TIMEOUT,
    ) -> list[Handled[T] | Exception]:
        """Run `function` for each message in order, and remember all of them in one transaction.

        `function` gets the connection or session of the transaction, and the message. It is
        called for each message that was not handled before, under the rules of `once`. Returns
        how each message ended, in their order: what `once` would return, or the error that it
        would raise.

        If `function` raises for a message, nothing of that message is stored, and the later ones
        of its subject end with `MessageSetAside`. The others are handled: those before it and
        those behind it in a transaction each. There, `function` is called again. After a conflict
        or an outage the whole transaction is repeated; when the retries or the `timeout` of the
        call are used up, all messages that are left end with the driver's error. A transaction
        has at most 500 messages. Raises only for wrong arguments.
        """
        require_plain("once_many", function)
        listed = list(messages)
        return self._handle(
            "once_many", listed, partial(_invoke_each, "once_many", function), on_gap, timeout
        )

    def _handle(
        self,
        method: str,
        messages: Sequence[Remembered],
        invoke: Callable[[Run[T], Any], object],
        on_gap: OnGap,
        timeout: float | None,
    ) -> list[Handled[T] | Exception]:
        require_options(on_gap, timeout)
        parts = (self._statements, self._sessions, method, messages, invoke)
        call = OnceCall(*parts, on_gap=on_gap, timeout=timeout)
        return self._connections.perform(call.program())

    def remember(self, connection: Joinable, message: Remembered) -> Order | None:
        """Remember a message in your own transaction, which you commit and retry.

        Returns None if the message was handled before: then leave out its effect. Otherwise
        returns its order in its subject, as in `Handled`, or ``new`` for an id.

        `connection` is a connection of psycopg 3 or psycopg2, a Session or Connection of
        SQLAlchemy 2 on one of these, or Django's connection inside `atomic`. `AsyncInbox` takes
        an AsyncConnection of psycopg 3, a connection of asyncpg, or an AsyncSession or
        AsyncConnection of SQLAlchemy on one of these. The call is one statement in your
        transaction. With `Writer.append_to` in the same one, the message, its effect and what
        follows from it are one COMMIT.

        Raises `SchemaError`, `MissingRight`, or the driver's exceptions, unchanged. After any
        error your transaction has failed: it can only be rolled back, so that no effect is stored
        without the memory of its message. Raises `TransactionMisused` if no transaction is open
        and the connection would commit the memory on its own, or if the session uses several
        connections, and `TypeError` for another driver.
        """
        try:
            return perform(remember(connection, session_of, self._statements, message), do)
        except BaseException as error:
            try:
                perform(refuse_commit(connection, error, REMEMBER, session_of), do)
            except BaseException:  # an interrupt, while an error is told
                perform(refuse_commit(connection, error, REMEMBER, session_of), do)
                raise
            raise

    def prune(self, older_than: timedelta) -> Pruned:
        """Forget the messages that were handled longer ago, by the database's clock.

        Reads all ids of the consumer, in transactions of at most 3,000 rows. It may be stopped
        and run again at any time. Returns the counts. `older_than` must be longer than the
        broker may deliver a message again: docs/inbox.md. Raises `SettingsError` unless it is
        above 0, `SchemaError` if the tables are missing, `MissingRight`, and the
        driver's errors.
        """
        pruning = Pruning(self._statements, self._connections, older_than)
        while pruning.has_more:
            self._connections.perform(pruning.page())
        return pruning.done

    def close(self) -> None:
        """Close the connections. A call that is in flight ends as it would have ended."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_statements(
    owner: str, database: Database, consumer: Any, max_connections: int
) -> Statements:
    """Return the statements of a consumer. Raises for invalid arguments."""
    require_database(owner, database)
    if not isinstance(consumer, str):
        raise wrong_type(f"{owner}.consumer is a str", consumer, f'{owner}(database, "mailer")')
    if not _CONSUMER.fullmatch(consumer):
        raise SettingsError(f"{owner}.consumer {consumer!r} must be 1 to 64 of A-Z a-z 0-9 . _ -")
    require_whole(owner, {"max_connections": max_connections})
    require_positive(owner, {"max_connections": max_connections})
    return Statements(database, consumer)


def lent_by(
    connections: Lender[Any], sessions: object, database: Database, *, is_async: bool
) -> Sessions:
    """Return what lends to functions: `sessions` of the caller, or else the inbox itself."""
    if sessions is None:
        return OwnSessions(connections)
    takes = database.takes_local_settings
    return sessions_of(sessions, ONCE, is_async=is_async, takes_local_settings=takes)


def require_options(on_gap: object, timeout: float | None) -> None:
    """Raise for invalid arguments of `once`."""
    require_seconds("timeout", timeout)
    if on_gap not in ("run", "raise"):
        raise ValueError(f'on_gap must be "run" or "raise", got {on_gap!r}')


def require_plain(method: str, function: object) -> None:
    """Raise `TypeError` unless it is a function whose call runs something."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise wrong_type(
            f"Inbox.{method} takes a plain function of a connection or session",
            function,
            f"{method}(.., function); AsyncInbox takes an async one",
        )


def _invoke_each(method: str, function: Callable[[Any, Any], T], run: Run[T], session: Any) -> None:
    for entry in run.turns():
        with causing(entry.message):
            value = entry.value = function(session, entry.message)
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()  # else Python warns that it was never awaited
            raise TypeError(
                f"the function given to Inbox.{method} returned an awaitable, which is never "
                f"awaited: nothing is stored; give it to AsyncInbox.{method}"
            )
