"""Counts the activity of an outbox: by its relay, its table and PostgreSQL's log."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import msgspec
import psycopg

from dsql_outbox.cli.relay.relay_counts import RelayCounts
from dsql_outbox.operations.status import StatusReader
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.failure import CONFLICTS, is_unreachable, kind_of

_EVERY: Final = 0.5  # seconds between two reads

LOG_SETTINGS: Final = {
    "log_line_prefix": "%m [%p] SQLSTATE %e ",
    # One line per error, without values of rows and without the statement.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
"""Settings of the server whose log is read."""

_ERROR: Final = re.compile(rb"SQLSTATE (\w{5}) (?:ERROR|FATAL):")


class Counts(msgspec.Struct, frozen=True, rename="camel"):
    """Numbers of events, but `conflicts`: of transactions.

    `failed` counts attempts to deliver.
    """

    written: int = 0
    delivered: int = 0
    failed: int = 0
    conflicts: int = 0
    dead_letters: int = 0

    def since(self, earlier: "Counts") -> "Counts":
        """The difference to `earlier`."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(earlier), strict=True)
        return Counts(*(now - before for now, before in pairs))


class Activity:
    """Counts since its creation."""

    def __init__(self, database: Database, log: Path, relayed: RelayCounts) -> None:
        """`log` is the log of a PostgreSQL server with `LOG_SETTINGS`."""
        self._database = database
        self._log = _ConflictLog(log)
        self._relayed = relayed
        self._waited = 0
        self.counts = Counts()

    async def watch(self, tell: Callable[[Counts], None]) -> None:
        """Report each change of the counts, at most twice per second, until cancelled.

        Call `begin` before.
        """
        async with StatusReader(self._database) as reader:
            while True:
                before, self.counts = self.counts, await self._look(reader)
                if self.counts != before:
                    tell(self.counts.since(before))
                await anyio.sleep(_EVERY)

    async def begin(self) -> None:
        """Record which messages wait before the relay starts. Raises the driver's errors."""
        async with StatusReader(self._database) as reader:
            self._waited = (await reader.read_waiting()).count

    async def _look(self, reader: StatusReader) -> Counts:
        written = max(self.counts.written, await self._count_written(reader))
        done = self._relayed
        return Counts(written, done.delivered, done.failed, self._log.count(), done.dead)

    async def _count_written(self, reader: StatusReader) -> int:
        """The messages that left the outbox or wait in it, without those that waited at the start.

        0 if that is not known: more messages wait than are counted, or the database is out of
        reach.
        """
        # Before the read: a row that leaves during it is not counted twice.
        left = self._relayed.deleted + self._relayed.dead
        try:
            waiting = await reader.read_waiting()
        except psycopg.Error as error:
            if is_unreachable(error):
                return 0
            raise
        return 0 if waiting.more else left + waiting.count - self._waited


class _ConflictLog:
    """Counts the conflicts in a log, from its present end on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._at = log.stat().st_size
        self._found = 0

    def count(self) -> int:
        with self._log.open("rb") as file:
            file.seek(self._at)
            whole = file.read().rpartition(b"\n")[0]
        self._at += len(whole)
        self._found += sum(map(_is_conflict, _ERROR.findall(whole)))
        return self._found


def _is_conflict(sqlstate: bytes) -> bool:
    try:
        return kind_of(psycopg.errors.lookup(sqlstate.decode())()) in CONFLICTS
    except KeyError:  # of no class that psycopg knows
        return False
