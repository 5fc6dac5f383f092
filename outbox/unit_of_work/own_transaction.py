"""The transaction of a run on a connection of the library, or on one that psycopg's pool lends."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.exchange import (
    NumberedQuery,
    Row,
    Statements,
    Values,
    commands,
    encoding_of,
    loaded_rows,
    pipeline,
    prepare_due,
    unprepared,
)
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender

from .commit import Guards, begin, commit, roll_back
from .gate import Gate
from .primitives import Exchange, Program
from .run_transaction import RunTransaction, Sessions, Watcher

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

T = TypeVar("T")


class OwnTransaction(RunTransaction):
    """On a connection of the library, of which the function gets a handle."""

    def __init__(self, connection: Connection | AsyncConnection) -> None:
        self._connection = connection
        self._handle: Connection | AsyncConnection | None = None

    @property
    def status(self) -> TransactionStatus:
        lent = self._lent
        if lent.was_busy:
            return TransactionStatus.ACTIVE
        status = lent.info.transaction_status
        if status is TransactionStatus.INTRANS and lent.pgconn.pipeline_status:
            return TransactionStatus.ACTIVE  # an open pipeline is a statement that runs
        return status

    @property
    def is_lost(self) -> bool:
        return self._connection.closed and not self._lent.was_closed

    @property
    def role(self) -> str | None:
        return None if self._connection.closed else self._connection.info.user

    @property
    def has_open_block(self) -> bool:
        return self._lent.has_open_block

    def begin(
        self, guards: Guards, run: str, statements: Statements = ()
    ) -> Program[Sequence[Row]]:
        """Begin it, in one round trip with the statements."""
        connection = self._connection
        if connection.due:
            yield Exchange(connection, prepare_due(connection))
        if not statements:
            yield from begin(connection, guards, run, partial(commands, connection))
            return ()
        encoded = self._encoded(statements)

        def send(texts: Sequence[bytes]) -> "PQGen[list[PGresult]]":
            return pipeline(connection, [*((unprepared(text), ()) for text in texts), *encoded])

        try:
            results = yield from begin(connection, guards, run, send)
        except psycopg.Error:
            # Its owner may keep connections that are healthy. One in a failed transaction is not.
            yield from roll_back(connection)
            raise
        return loaded_rows(connection, results[-1])

    def run(self, statements: Statements) -> Program[Sequence[Row]]:
        connection = self._connection
        results = yield Exchange(connection, pipeline(connection, self._encoded(statements)))
        return loaded_rows(connection, results[-1])

    def _encoded(self, statements: Statements) -> Sequence[tuple[NumberedQuery, Values]]:
        encoding = encoding_of(self._connection)
        return [(query, query.encode(values, encoding)) for query, values in statements]

    @contextmanager
    def lent(self, run: Watcher) -> Generator[Any]:
        with self._connection.lent(run.refuse_outside, run.note_failure) as handle:
            self._handle = handle
            yield handle

    def commit(
        self, guards: Guards, run: str, own: Mapping[str, str] | None, gate: Gate
    ) -> Program[None]:
        statements = guards.commit_statements(self._connection, run, own)
        # Nothing is stored before this point, so only from here on is the outcome in doubt.
        gate.admit("COMMIT", self._connection, TransactionStatus.INTRANS)
        yield from commit(self._connection, statements)

    def roll_back(self) -> Program[None]:
        yield from roll_back(self._connection)

    @property
    def _lent(self) -> Connection | AsyncConnection:
        assert self._handle is not None  # noqa: S101 - the function gets it, and the judge follows
        return self._handle


class OwnSessions(Sessions):
    """Lends connections of the library, each with the search path of its role."""

    def __init__(self, connections: Lender[Any]) -> None:
        self._connections = connections

    def lend(
        self,
        work: Callable[[RunTransaction], Program[T]],
        *,
        fresh: bool = False,
        role_path: bool = True,
        deadline: float | None = None,
    ) -> Program[T]:
        return self._connections.lend(
            lambda connection: work(OwnTransaction(connection)),
            fresh=fresh,
            role_path=role_path,
            deadline=deadline,
        )
