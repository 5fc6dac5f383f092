"""The transaction of a run on a connection of the library, or on one that psycopg's pool lends."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from psycopg.pq import TransactionStatus

from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.exchange import commands

from .commit import Guards, begin, commit, roll_back
from .gate import Gate
from .primitives import Program
from .run_transaction import RunTransaction, Watcher


class OwnTransaction(RunTransaction):
    """On a connection of the library, of which the function gets a handle."""

    def __init__(self, connection: Connection | AsyncConnection) -> None:
        self._connection = connection
        self._handle: Connection | AsyncConnection | None = None

    @property
    def status(self) -> TransactionStatus:
        if self._lent.was_busy:
            return TransactionStatus.ACTIVE
        status = self._lent.info.transaction_status
        if status is TransactionStatus.INTRANS and self._lent.pgconn.pipeline_status:
            return TransactionStatus.ACTIVE  # an open pipeline is a statement that runs
        return status

    @property
    def is_lost(self) -> bool:
        return self._connection.closed and not self._lent.was_closed

    @property
    def role(self) -> str:
        return self._connection.info.user

    @property
    def has_open_block(self) -> bool:
        return self._lent.has_open_block

    def begin(self, guards: Guards, run: str) -> Program[None]:
        connection = self._connection
        yield from begin(connection, guards, run, partial(commands, connection))

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
