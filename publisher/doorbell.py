"""The doorbell of a publisher: it hears what writers of other processes ring, on PostgreSQL."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import psycopg
from psycopg import generators

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.exchange import command
from dsql_outbox.outbox.failure import text_of
from dsql_outbox.outbox.settings import DOORBELL_CHANNEL
from dsql_outbox.schema.named_statements import statement

logger: Final = logging.getLogger("dsql_outbox")

_PAUSE: Final = 0.01
"""Seconds between two answers to the doorbell: every role of the database can ring it."""

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0
"""Seconds between two tries to hear it; the wait doubles."""

_PATIENCE: Final = 5.0
"""Seconds after which the publisher should have heard its own ring."""

_NOTHING: Final = (
    f"it rang, and heard nothing within {_PATIENCE:g} s; no notification comes through a pooler "
    "that lends sessions for transactions: give the publisher a URL of the server itself "
    "(--database)"
)

_LOOK: Final = 60.0
"""Seconds after which a wait for a ring looks at the connection."""


class DoorbellListener:
    """Calls `wake` when a writer of the schema rings, at most every `_PAUSE` seconds.

    It has a connection of its own. While it hears nothing the publisher polls, so it only logs
    what goes wrong. `ring` rings over another connection, to find out whether it hears.
    """

    def __init__(
        self, database: Database, wake: Callable[[], None], ring: Callable[[], Awaitable[object]]
    ) -> None:
        self._database = database
        self._wake = wake
        self._ring = ring
        self._own = (DOORBELL_CHANNEL.encode(), database.schema.encode())
        self._wait = _FIRST_WAIT
        self._is_told = False

    async def run(self) -> None:
        """Listen until the task is cancelled, and again after each loss of the connection."""
        while True:
            try:
                await self._hear()
            except (psycopg.Error, OSError) as error:
                self._tell_deaf(text_of(error) if isinstance(error, psycopg.Error) else str(error))
            await anyio.sleep(self._wait)
            self._wait = min(_LONGEST_WAIT, 2 * self._wait)

    async def _hear(self) -> None:
        connection = await self._database.connect_async(waits_for_cluster=False)
        try:
            # psycopg would decode each notification, and keep it.
            connection.pgconn.notify_handler = None
            await connection.wait(command(connection, statement("doorbell_listen", "")))
            await self._answer_all(connection)
        finally:
            connection.drop()

    async def _answer_all(self, connection: AsyncConnection) -> None:
        """Wake for each ring. The first one is the publisher's own, unless a writer was quicker."""
        timer = asyncio.get_running_loop().call_later(_PATIENCE, self._tell_deaf, _NOTHING)
        try:
            try:
                await self._ring()
            except psycopg.Error:  # nothing is known then; rows may have come before the LISTEN
                timer.cancel()
                self._wake()
            while True:
                heard = await connection.wait(
                    generators.notifies(connection.pgconn), interval=_LOOK
                )
                if any((each.relname, each.extra) == self._own for each in heard):
                    timer.cancel()
                    self._tell_hearing()
                    self._wake()
                await anyio.sleep(_PAUSE)
        finally:
            timer.cancel()

    def _tell_hearing(self) -> None:
        self._wait = _FIRST_WAIT
        if self._is_told:
            self._is_told = False
            logger.info("Publisher hears the doorbell again")

    def _tell_deaf(self, why: str) -> None:
        if not self._is_told:
            self._is_told = True
            logger.warning("Publisher does not hear the doorbell, and polls: %s", why)
