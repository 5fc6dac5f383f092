"""What an erasure leaves in the files of PostgreSQL, and how it goes from there."""

import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from tests.support.publisher.given_up_messages import relay_all

from dsql_outbox.operations import Erasures
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.postgres_only("nobody sees the files of DSQL, and it refuses VACUUM"),
]

NAME: Final = "Zaphod Beeblebrox"
PERSON: Final = "4711"
MAIL: Final = "zaphod@example.com"
TOASTED: Final = 4_000
"""Bytes of text that does not compress, so that PostgreSQL stores the value apart from its row."""


class DatabaseFiles:
    """The files of one database, without the server's WAL."""

    def __init__(self, sql: psycopg.Connection[Any]) -> None:
        self._sql = sql

    def with_text(self, text: str) -> set[str]:
        """The tables and indexes whose files contain a text."""
        self._sql.execute("CHECKPOINT")  # what is only in memory could be missed
        ((folder,),) = self._sql.execute(
            "SELECT current_setting('data_directory') || '/base/' || oid"
            " FROM pg_database WHERE datname = current_database()"
        )
        paths = "SELECT pg_relation_filepath(oid), relname FROM pg_class WHERE relfilenode > 0"
        names = {Path(path).name: name for path, name in self._sql.execute(paths)}
        return {
            names.get(file.name, file.name)
            for file in Path(folder).iterdir()
            if text.encode() in file.read_bytes()
        }


@pytest.fixture
def sql(outbox_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def erased(outbox_url: str, sql: psycopg.Connection[Any]) -> DatabaseFiles:
    """The files after a person was erased, and the notice was delivered."""
    database = Database(outbox_url)
    with Writer(database) as writer:
        for n in range(30):
            pad = secrets.token_hex(TOASTED // 2) if n % 3 == 0 else ""
            attributes = {"id": PERSON, "name": NAME, "mail": MAIL, "pad": pad}
            writer.write(Event.new("Moved", [Entity("Person", PERSON, attributes)]))
    await relay_all(database, MemorySink())
    sql.execute("ANALYZE")
    async with Erasures(database) as tool:
        await tool.erase(f"Person/{PERSON}", reason="request 79")
    await relay_all(database, MemorySink())
    return DatabaseFiles(sql)


async def test_vacuum_leaves_an_erased_name_in_the_files_of_the_tables(
    erased: DatabaseFiles, sql: psycopg.Connection[Any]
) -> None:
    """It frees the space of old versions, and does not write it over."""
    sql.execute("VACUUM")
    assert {"business_events", "entities"} <= erased.with_text(NAME)


async def test_analyze_and_vacuum_full_leave_an_erased_name_in_no_file_of_the_database(
    erased: DatabaseFiles, sql: psycopg.Connection[Any]
) -> None:
    """Nor in the indexes, the values that are stored apart, and the statistics."""
    assert any(name.startswith("pg_toast") for name in erased.with_text(NAME))
    for statement in ("ANALYZE", "VACUUM FULL", "CHECKPOINT"):
        sql.execute(statement)
    assert erased.with_text(NAME) == set()
    assert erased.with_text(MAIL) == set()


async def test_a_transaction_that_is_open_keeps_an_erased_name_in_the_files(
    outbox_url: str, sql: psycopg.Connection[Any]
) -> None:
    database = Database(outbox_url)
    with Writer(database) as writer:
        writer.write(Event.new("Moved", [Entity("Person", "7", {"name": NAME})]))
    await relay_all(database, MemorySink())
    with open_snapshot(outbox_url):
        async with Erasures(database) as tool:
            await tool.erase("Person/7", reason="request 79")
        await relay_all(database, MemorySink())
        sql.execute("VACUUM FULL outbox.business_events")
        assert "business_events" in DatabaseFiles(sql).with_text(NAME)
    sql.execute("VACUUM FULL outbox.business_events")
    assert "business_events" not in DatabaseFiles(sql).with_text(NAME)


@contextmanager
def open_snapshot(url: str) -> Generator[None]:
    """A transaction that sees the rows as they are, until the end of the block."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT")
        yield
