"""``make cluster-report``: what a cluster of Aurora DSQL answers, beside the answers expected.

The statements are those of statements.md. What needs two sessions, much data or the library
follows. A line says ``ok``, ``differs`` or ``told``: an answer that no document foretells.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Final, NamedTuple

import psycopg

from dsql_outbox.cli.database_options import database_address
from dsql_outbox.outbox import Database, Entity, Event, OutboxError
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

PAGE: Final = Path(__file__).with_name("statements.md")
NULL_ID: Final = "'00000000-0000-0000-0000-000000000000'"
_BLOCK: Final = re.compile(
    r"^## \d+\. ([^\n]+)\n.*?```sql\n(.*?)```\s*```text\n(.*?)\n```", re.DOTALL | re.MULTILINE
)
_DAY: Final = 86_400.0
_WAIT: Final = 0.5
"""Seconds without an answer after which a statement is said to wait for the other session."""
_COMMITS: Final = 10
_WRITERS, _EACH = 20, 5
_HOUR, _EVERY = 65 * 60.0, 10.0
"""Seconds. A cluster ends a connection after 60 minutes, and a token after 5."""


class Question(NamedTuple):
    """A statement, and its answer; one in parentheses is not compared."""

    name: str
    sql: str
    expected: str


class Answer(NamedTuple):
    """What was asked, what was answered, and what was expected, if anything was."""

    name: str
    said: str
    expected: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line of the report."""
        if not self.expected:
            return f"told     {self.name}: {self.said}"
        verdict = "ok     " if self.said in self.expected else "differs"
        return f"{verdict}  {self.name}: {self.said} (expected: {' or '.join(self.expected)})"


def questions() -> list[Question]:
    """The statements of the page."""
    return [Question(*found) for found in _BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


def in_schema(sql: str, schema: str) -> str:
    """Name the table `asked` with its schema."""
    return re.sub(r"\basked\b", f'"{schema}".asked', sql)


def answer_of(connection: Connection, sql: str) -> str:
    """The rows of a statement, sorted, the columns with bars between; else what was done."""
    try:
        cursor = connection.execute(sql.encode())
        if cursor.description is None:
            return cursor.statusmessage or ""
        rows = [" | ".join(map(_shown, row)) for row in cursor.fetchall()]
    except psycopg.Error as error:
        if not connection.closed:
            connection.rollback()
        return f"{error.sqlstate}: {error_line(error)}"
    return "\n".join(rows if sql.startswith("EXPLAIN") else sorted(rows))


def _shown(value: object) -> str:
    return str(value)[0].lower() if isinstance(value, bool) else str(value)


class Cluster:
    """A database with the table `asked` in its schema, which may be there already."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def connect(self) -> Connection:
        """Open a session that may be used for long."""
        connection = self._database.connect()
        connection.deadline = monotonic() + _DAY
        return connection

    def sql(self, text: str) -> str:
        """A statement on the table."""
        return in_schema(text, self._database.schema)

    def ask(self) -> Iterator[Answer]:
        """Ask all that takes seconds. The table is gone in the end."""
        with closing(self.connect()) as one:
            try:
                for name, sql, expected in questions():
                    exact = () if expected.startswith("(") else (expected,)
                    yield Answer(name, answer_of(one, self.sql(sql)), exact)
                yield from self._races()
                yield self._commit(one)
                yield Answer("one round trip", self._pipeline(one), ("COMMIT",))
            finally:
                answer_of(one, self.sql("DROP TABLE IF EXISTS asked"))
            big = "SELECT count(*) FROM (SELECT n, repeat(n::text, 200) AS word"
            big += " FROM generate_series(1, 200000) AS n ORDER BY word OFFSET 1) AS sorted"
            yield Answer("a query over 128 MiB", answer_of(one, big))
        with closing(self.connect()) as other:
            yield Answer(
                "a message of 11 MiB", answer_of(other, f"SELECT length('{'x' * (11 << 20)}')")
            )
        yield asyncio.run(self._storm())

    def _races(self) -> Iterator[Answer]:
        insert = f"INSERT INTO asked (shard, position, event_id) VALUES (3, {{}}, {NULL_ID})"
        upsert = f"{insert} ON CONFLICT (shard, position, event_id) DO UPDATE SET topic = 'u'"
        update = "UPDATE asked SET topic = 'v' WHERE shard = 1 AND position = 1"
        both = ("23505 at the statement", "40001 at the statement", "40001 at COMMIT")
        yield Answer("two inserts of one key", self._race(insert.format(1)), both)
        yield Answer("two upserts of one key", self._race(upsert.format(2)), both)
        yield Answer("two updates of one row", self._race(update), both[1:])

    def _race(self, text: str) -> str:
        """How the second of two transactions with the same statement ends."""
        sql = self.sql(text).encode()
        with ExitStack() as stack:
            first, second = (stack.enter_context(closing(self.connect())) for _ in range(2))
            for session in (first, second):
                session.execute(self.sql("SELECT count(*) FROM asked").encode())  # OC001 comes now
                session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                session.execute(self.sql("SELECT count(*) FROM asked").encode())
            first.execute(sql)
            with ThreadPoolExecutor(1) as thread:
                waiting = thread.submit(second.execute, sql)
                with suppress(TimeoutError, psycopg.Error):
                    waiting.result(_WAIT)
                first.commit()
                if error := waiting.exception():
                    return _ended(error, "the statement")
            try:
                second.commit()
            except psycopg.Error as error:
                return _ended(error, "COMMIT")
            return "both committed"

    def _commit(self, connection: Connection) -> Answer:
        insert = self.sql(
            f"INSERT INTO asked (shard, position, event_id) VALUES (4, {{}}, {NULL_ID})"
        )
        taken: list[float] = []
        for n in range(_COMMITS):
            start = monotonic()
            answer_of(connection, insert.format(n))
            taken.append(monotonic() - start)
        return Answer("the smallest write", f"{median(taken) * 1000:.1f} ms, median of {_COMMITS}")

    def _pipeline(self, connection: Connection) -> str:
        insert = self.sql(f"INSERT INTO asked (shard, position, event_id) VALUES (5, 1, {NULL_ID})")
        with connection.pipeline():
            connection.execute("BEGIN")
            connection.execute(insert.encode())
            ended = connection.execute("COMMIT")
        return ended.statusmessage or ""

    async def _storm(self) -> Answer:
        """Whether many writers of one entity store all events, with the default settings."""
        settings = WriterSettings(max_connections=_WRITERS, backlog_check=None)
        async with AsyncWriter(self._database, settings) as writer:

            async def write() -> list[int]:
                return [(await writer.write(_event("CAR-HOT"))).conflicts for _ in range(_EACH)]

            start = monotonic()
            ends = await asyncio.gather(*(write() for _ in range(_WRITERS)), return_exceptions=True)
        stored = [each for end in ends if isinstance(end, list) for each in end]
        said = f"{len(stored)} of {_WRITERS * _EACH} events of one entity stored"
        how = f"{sum(stored)} conflicts, {monotonic() - start:.1f} s"
        return Answer(
            f"{_WRITERS} writers ({how})", said, (said.replace(str(len(stored)), "100", 1),)
        )

    def hour(self) -> Iterator[Answer]:
        """Keep a connection for 65 minutes, and write an event every 10 s."""
        start, stored, written, ended = monotonic(), 0, 0, "not ended"
        with closing(self.connect()) as held, Writer(self._database) as writer:
            while monotonic() < start + _HOUR:
                if ended == "not ended":
                    said = answer_of(held, "SELECT 1")
                    if said != "1":
                        ended = f"after {monotonic() - start:.0f} s, {said}"
                written += 1
                with suppress(psycopg.Error, OutboxError):
                    writer.write(_event("CAR-1"))
                    stored += 1
                sleep(_EVERY)
        yield Answer("the end of a connection", ended)
        yield Answer(
            "writes of an hour",
            f"{stored} of {written} stored",
            (f"{written} of {written} stored",),
        )


def _ended(error: BaseException, where: str) -> str:
    state = getattr(error, "sqlstate", None)
    return f"{state} at {where}"


def _event(car: str) -> Event:
    return Event.new("CarDriven", [Entity("Car", car, {})])


def main(words: list[str] | None = None) -> int:
    """Print the report. Return 1 if an answer differs."""
    parser = argparse.ArgumentParser(prog="make cluster-report", description=__doc__)
    parser.add_argument("database", help="URL of the database, with outbox tables")
    parser.add_argument("--schema", default="outbox")
    parser.add_argument("--hour", action="store_true", help="also keep a connection for 65 minutes")
    given = parser.parse_args(words)
    has_differed = False
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    with database_address(given.database) as address:
        cluster = Cluster(Database(address, schema=given.schema))
        for ask in (cluster.ask, cluster.hour) if given.hour else (cluster.ask,):
            for answer in ask():
                line = str(answer)
                has_differed |= line.startswith("differs")
                print(line, flush=True)
    return int(has_differed)


if __name__ == "__main__":
    sys.exit(main())
