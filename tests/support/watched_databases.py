"""Databases that watch or bend the statements sent to them."""

from collections.abc import Callable
from typing import Any, Final

import psycopg

from dsql_outbox.outbox import Connection, Database

ASKED: Final = 3
"""How often a build is asked for until it has ended."""

_JOBS: Final = (
    "CREATE SCHEMA IF NOT EXISTS sys; CREATE TABLE IF NOT EXISTS sys.jobs (status text,"
    " details text, job_type text, object_name text, start_time timestamptz)"
)
_SUBMIT: Final = (
    "INSERT INTO sys.jobs VALUES ('processing', NULL, 'INDEX_BUILD', 'outbox.by_name',"
    " clock_timestamp()) RETURNING 'job id'"
)
_END: Final = "UPDATE sys.jobs SET status = %s, details = %s WHERE status = 'processing'"
_VALID: Final = (
    "UPDATE pg_index SET indisvalid = %s WHERE indexrelid = to_regclass('outbox.by_name')"
)


class Crash(Exception):
    """The process dies here."""


def reads(text: str) -> bool:
    """Whether a statement changes nothing."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return lines[0].startswith(("SELECT", "WITH"))


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
            return self.run(run, query, *args, **kwargs)

        connection.execute = execute  # type: ignore[method-assign]
        return connection

    def run(self, run: Callable[..., Any], query: bytes, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return run(query, *args, **kwargs)


class DsqlShapedDatabase(WatchedDatabase):
    """PostgreSQL that builds indexes as Aurora DSQL does: in the background, told in sys.jobs.

    A build ends when it was asked for twice, as `ending` says: a status, details, and
    whether the index is valid then.
    """

    def __init__(
        self, url: str, ending: tuple[str, str | None, bool] = ("completed", None, True)
    ) -> None:
        super().__init__(url)
        self._ending = ending
        self._asked = 0
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_JOBS)

    def run(self, run: Callable[..., Any], query: bytes, *args: Any, **kwargs: Any) -> Any:
        """Send it; a build goes on when its job is asked for."""
        assert b"INDEX CONCURRENTLY" not in query
        if b"INDEX ASYNC" in query:
            self._asked = 0
            run(query.replace(b" ASYNC", b""))
            run(_VALID, (False,))
            return run(_SUBMIT)
        if b"FROM sys.jobs" in query and args[0] is not None:
            self._asked += 1
            if self._asked == ASKED:
                status, details, valid = self._ending
                run(_END, (status, details))
                run(_VALID, (valid,))
        return run(query, *args, **kwargs)
