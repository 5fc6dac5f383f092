"""Databases that watch or bend the statements sent to them."""

from collections.abc import Callable
from typing import Any, Final

import psycopg

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.database.connection import Connection

_JOBS: Final = "CREATE SCHEMA IF NOT EXISTS sys; CREATE TABLE IF NOT EXISTS sys.jobs (status text)"


class Crash(Exception):
    """The process dies here."""


def reads(text: str) -> bool:
    """Whether a statement changes nothing."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    changes = any(line.startswith(("INSERT", "UPDATE", "DELETE")) for line in lines)
    return lines[0].startswith(("SELECT", "WITH")) and not changes


class WatchedDatabase(Database):
    """Calls `before` with the number of each statement, counted from 0, before it runs."""

    def __init__(
        self, url: str, schema: str = "outbox", before: Callable[[int], None] = lambda _: None
    ) -> None:
        super().__init__(url, schema=schema)
        self._before = before
        self.sent: list[str] = []

    @property
    def statements(self) -> int:
        """How many were sent so far."""
        return len(self.sent)

    def connect(self, **options: Any) -> Connection:
        """A connection that is watched."""
        connection = super().connect(**options)
        run = connection.execute

        def execute(query: Any, *args: Any, **kwargs: Any) -> Any:
            self.sent.append(query.decode())
            self._before(self.statements - 1)
            return run(query, *args, **kwargs)

        connection.execute = execute  # type: ignore[method-assign]
        return connection


class DsqlShapedDatabase(WatchedDatabase):
    """PostgreSQL with the table by which Aurora DSQL is known."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_JOBS)
