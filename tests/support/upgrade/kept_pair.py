"""The kept pair: a wheel of the version before, and a dump of the rows that it left.

`make upgrade-pair` makes it (`make_pair`), and the first release keeps the first one. The dump is
SQL that PostgreSQL runs as one text.
"""

import lzma
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import psycopg
import pytest
from tests.support.checkout import ROOT

from dsql_outbox.schema.tables import migrations

FOLDER: Final = ROOT / "tests" / "data" / "upgrade"
DUMP: Final = FOLDER / "outbox.sql"

_RECORDS: Final = r"^INSERT INTO outbox\.schema_migrations .*'(\w+)', '(\w{64})'"
_TIMEOUT: Final = 60.0  # seconds; a safety net
_AGED: Final = (
    b"UPDATE outbox.outbox_leases SET expires_at = expires_at - interval '1 day';"
    b"UPDATE outbox.outbox_publishers SET seen_at = seen_at - interval '1 day'"
)
"""A release is older than a lease: the publisher of a pair that was just made counts as dead."""

_CHANGED: Final = (
    "schema/migrations has changed the table of {names} since tests/data/upgrade was made, so "
    "tables as they were cannot be upgraded. Once 0.1.0 is released, such a file never changes: "
    "see `Add a migration` in CONTRIBUTING.md. Until then remove the folder, or make it anew by "
    "`make upgrade-pair`"
)


def load(url: str) -> None:
    """Make the tables and rows of the dump in an empty database.

    The test fails if a file of `schema/migrations` has changed since the dump.
    """
    text = DUMP.read_text(encoding="utf-8")
    now = {each.name: each.checksum for each in migrations()}
    then: list[tuple[str, str]] = re.findall(_RECORDS, text, re.MULTILINE)
    if changed := [name for name, checksum in then if now.get(name) != checksum]:
        pytest.fail(_CHANGED.format(names=", ".join(changed)), pytrace=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())
        connection.execute(_AGED)


def rows(url: str, columns: Mapping[str, Sequence[str]] | None = None) -> dict[str, list[Any]]:
    """All rows by table, or those columns of them, as text."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = columns or table_columns(connection)
        return {name: _texts(connection, name, found[name]) for name in found}


def table_columns(connection: psycopg.Connection[Any]) -> dict[str, list[str]]:
    """The columns of each table of the outbox, in the order in which the tables were made."""
    found: dict[str, list[str]] = {}
    for table, column in connection.execute(
        """SELECT relname, attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'outbox'::regnamespace AND relkind = 'r' AND attnum > 0
        AND NOT attisdropped ORDER BY c.oid, attnum"""
    ):
        found.setdefault(table, []).append(column)
    return found


def _texts(connection: psycopg.Connection[Any], table: str, columns: Sequence[str]) -> list[Any]:
    chosen = ", ".join(f"{column}::text" for column in columns)
    query = f"SELECT {chosen} FROM outbox.{table} ORDER BY {chosen}"
    return connection.execute(query.encode()).fetchall()


class OldVersion:
    """The command line of the kept wheel, with the packages that are installed here."""

    def __init__(self, folder: Path) -> None:
        """Unpack the wheel into a folder."""
        (wheel,) = FOLDER.glob("*.whl.xz")
        self.version = wheel.name.split("-")[1]
        self._folder = folder
        with ZipFile(BytesIO(lzma.decompress(wheel.read_bytes()))) as packed:
            packed.extractall(folder)

    def run(self, *words: object, stdin: bytes = b"") -> str:
        """Run a command to its end, which must be without an error. Returns what it printed."""
        done = subprocess.run(
            self._command(words),
            **self._options(),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
        )
        assert done.returncode == 0, (words, done.stderr.decode())
        return done.stdout.decode()

    @contextmanager
    def started(self, *words: object) -> Generator["subprocess.Popen[bytes]"]:
        """A command at work; it is killed at the end of the block, if it still runs."""
        with subprocess.Popen(
            self._command(words),
            **self._options(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _command(self, words: Sequence[object]) -> list[str]:
        return [sys.executable, "-m", "dsql_outbox", *map(str, words)]

    def _options(self) -> dict[str, Any]:
        # Its lines are none of this checkout, so its coverage is not measured.
        env = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
        return {"cwd": self._folder, "env": env | {"PYTHONPATH": str(self._folder)}}
