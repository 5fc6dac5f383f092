"""The doorbell: a writer that has committed wakes the publishers of other processes, on PostgreSQL.

It is a hint. A ring that is lost, refused or slow costs a message no more than the wait for the
next poll, so no call waits for a ring, and none fails by it.

NOTIFY takes a lock for the whole server until its transaction has ended. So it never runs in a
transaction that writes: it goes over an idle connection of the writer, after the COMMIT.
"""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Final, Generic, TypeVar

import psycopg
from psycopg import errors

from dsql_outbox.outbox.database.connection import AsyncConnection, Connection
from dsql_outbox.outbox.database.exchange import answer
from dsql_outbox.outbox.database.fork import call_in_children
from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.failure import LASTING, kind_of
from dsql_outbox.outbox.interrupt import is_interrupt
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.connections.thread_connections import Connections
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Open, Program, Sleep
from dsql_outbox.schema.named_statements import numbered_statement

C = TypeVar("C", Connection, AsyncConnection)

logger: Final = logging.getLogger("dsql_outbox")

JOINED: Final = 0.01
"""Seconds after a ring in which later ones are joined into one, at their end."""

_PATIENCE: Final = 1.0
"""Seconds that the server may take to answer. Then the connection is closed."""

_TURN: Final = 0.1
"""Seconds in which no connection is idle, after which a ring takes its turn among the calls."""

_NO_BELL: Final = (errors.FeatureNotSupported, errors.UndefinedFunction)
"""The errors of a server that has no NOTIFY."""


class Doorbell(ABC, Generic[C]):
    """Rings for the commits of one writer: at once, and then every `JOINED` seconds at most.

    `ring` sends the first NOTIFY by itself. A *round* beside the calls takes the answer, and sends
    what is rung meanwhile. It ends when nothing was. Without `is_on` nothing is sent.
    """

    def __init__(self, connections: Lender[C], schema: str, *, is_on: bool) -> None:
        self._connections: Lender[C] = connections
        query = numbered_statement("doorbell_ring", schema)
        self._query, self._values = query, query.encode({"schema": schema})
        self._is_on = is_on
        self._begin()
        call_in_children(self._begin)

    def _begin(self) -> None:
        """Begin without a round. In a forked child no round of the parent goes on."""
        self._lock = threading.Lock()
        self._has_round = False
        self._is_wanted = False
        self._has_failed = False
        self._role_path = False
        self._unanswered: C | None = None

    def ring(self) -> None:
        """Ring after a COMMIT. Raises nothing but interrupts, and waits for nothing."""
        if not self._is_on:
            return
        with self._lock:
            self._is_wanted = True
            if self._has_round:
                return
            self._has_round = True
        try:
            self._send()
            self._start_round()
        except BaseException as error:
            self._has_round = False
            if is_interrupt(error):
                raise
            self._note(error)

    def close(self) -> None:
        """Send what was rung and is not sent, and nothing after that."""
        with self._lock:
            is_due, self._is_on = self._is_wanted and self._has_round, False
        if is_due and (connection := self._connections.borrow()) is not None:
            with suppress(psycopg.Error):
                connection.send(self._query.text, self._values)
            self._connections.take_back(connection)  # which closes it behind the statement

    @abstractmethod
    def _start_round(self) -> None:
        """Perform `_round` beside the calls."""

    def _send(self) -> None:
        """Send NOTIFY on a connection that nobody needs, if there is one."""
        if (connection := self._connections.borrow()) is not None:
            self._role_path = connection.role_path
            self._send_on(connection)

    def _send_on(self, connection: C) -> None:
        self._is_wanted = False  # first: what is rung from now on may come after this NOTIFY
        try:
            connection.deadline = monotonic() + _PATIENCE
            connection.send(self._query.text, self._values)
        except BaseException as error:
            self._connections.take_back_failed(connection, error)
            if is_interrupt(error):
                raise
            self._note(error)
        else:
            self._unanswered = connection

    def _round(self) -> Program[None]:
        """Take the answer, wait, send what was rung meanwhile, and so on."""
        wanted_at = monotonic()
        try:
            while True:
                if self._unanswered is not None or not self._is_wanted:
                    wanted_at = monotonic()
                elif self._connections.may_open() or monotonic() - wanted_at >= _TURN:
                    yield from self._send_in_turn()
                yield from self._take_answer()
                yield Sleep(JOINED)
                if self._has_ended():
                    return
                self._send()
        except BaseException:
            self._has_round = False
            raise

    def _has_ended(self) -> bool:
        with self._lock:
            self._has_round = self._is_wanted and self._is_on
            return not self._has_round

    def _send_in_turn(self) -> Program[None]:
        """Send on a connection that is given, or opened, as to a call of the writer."""
        deadline = monotonic() + _PATIENCE
        try:
            connection: C = yield Open(fresh=False, role_path=self._role_path, deadline=deadline)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._note(error)
            self._is_wanted = False
        else:
            self._send_on(connection)

    def _take_answer(self) -> Program[None]:
        connection, self._unanswered = self._unanswered, None
        if connection is None:
            return
        try:
            yield Exchange(connection, answer(connection))
        except BaseException as error:
            self._connections.take_back_failed(connection, error)
            if is_interrupt(error):
                raise
            self._note(error)
        else:
            self._has_failed = False
            self._connections.take_back(connection)

    def _note(self, error: BaseException) -> None:
        """Log the first failure. A server that refuses a ring is not asked again."""
        is_refused = isinstance(error, psycopg.Error) and kind_of(error) in LASTING
        if is_refused or isinstance(error, _NO_BELL):
            self._is_on = False
        if not self._has_failed:
            self._has_failed = True
            logger.warning(
                "Writer cannot ring the doorbell, so publishers find its events by polling: %s",
                error_line(error) if isinstance(error, Exception) else type(error).__name__,
            )


class ThreadDoorbell(Doorbell[Connection]):
    """The doorbell of a `Writer`. A round has a thread of its own."""

    def __init__(self, connections: Connections, schema: str, *, is_on: bool) -> None:
        self._threads = connections
        super().__init__(connections, schema, is_on=is_on)

    def _start_round(self) -> None:
        self._threads.run_beside(lambda: self._threads.perform(self._round()), "doorbell")


class TaskDoorbell(Doorbell[AsyncConnection]):
    """The doorbell of an `AsyncWriter`. A round has a task of its own, in the loop of the call."""

    def __init__(self, connections: AsyncConnections, schema: str, *, is_on: bool) -> None:
        self._tasks = connections
        self._task: asyncio.Task[None] | None = None
        super().__init__(connections, schema, is_on=is_on)

    def ring(self) -> None:
        """See `Doorbell.ring`. Call it in the event loop of the writer."""
        if not self._is_on:
            return
        try:
            loop = self._tasks.enter_loop()
        except OutboxError as error:
            self._note(error)
            return
        if self._task is not None and self._task.get_loop() is not loop:
            self._task = None  # the round of a former loop goes on nowhere
            self._begin()
        super().ring()

    async def end(self) -> None:
        """Close, and end the round without a wait for the server."""
        self.close()
        task = self._task
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})

    def _start_round(self) -> None:
        # An empty context, so that the span of a caller is no parent of shared work.
        loop = self._tasks.enter_loop()
        self._task = loop.create_task(self._tasks.perform(self._round()), context=Context())
        self._task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """End the round of a task that was cancelled, perhaps before it began."""
        if task is self._task and task.cancelled():
            self._has_round = False
            connection, self._unanswered = self._unanswered, None
            if connection is not None:
                self._connections.take_back(connection)
