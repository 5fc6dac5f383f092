"""Make the kept pair of this version anew: its wheel, and a dump of the rows that it leaves.

Run it by `make upgrade-pair`, which runs the tests of the pair too.
"""

import lzma
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zipfile import ZipFile, ZipInfo

import anyio
import psycopg
from tests.support.checkout import ROOT, copy_checkout
from tests.support.upgrade.kept_pair import DUMP, FOLDER, table_columns
from tests.support.upgrade.left_rows import SHARDS, left_rows
from uv import find_uv_bin

from dsql_outbox.outbox import Database
from dsql_outbox.schema.migrator import apply, script
from dsql_outbox.testing import EmbeddedPostgres

_NEVER_FULL: Final = set()
"""A report of the last hours, which no publisher and no operator's tool needs."""


def main() -> None:
    """Make the pair, and put it in the place of the kept one."""
    with TemporaryDirectory() as work:
        made = Path(work, "pair")
        made.mkdir()
        make_wheel(Path(work), made)
        anyio.run(make_dump, made)
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(made, FOLDER)


def make_wheel(work: Path, made: Path) -> None:
    """Build the wheel of the checkout. The last commit is a part of its version."""
    clone = work / "checkout"
    copy_checkout(ROOT, clone)
    project = clone / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    given = tomllib.loads(text)["project"]["version"]
    commit, seconds = _git("log", "-1", "--format=%h %ct").split()
    text = text.replace(f'version = "{given}"', f'version = "{given}+g{commit}"', 1)
    project.write_text(text, encoding="utf-8")
    options = ("--wheel", "--quiet", "--no-build-isolation", "--offline", "--python")
    subprocess.run(
        [find_uv_bin(), "build", *options, sys.executable, "--out-dir", work, clone],
        env=os.environ | {"SOURCE_DATE_EPOCH": seconds},
        check=True,
    )
    (wheel,) = work.glob("*.whl")
    packed(wheel, made / f"{wheel.name}.xz")


def packed(wheel: Path, target: Path) -> None:
    """Keep the wheel in half of its size: its 700 small files are compressed together."""
    plain = BytesIO()
    with ZipFile(wheel) as files, ZipFile(plain, "w") as copy:
        for name in sorted(files.namelist()):
            copy.writestr(ZipInfo(name), files.read(name))
    target.write_bytes(lzma.compress(plain.getvalue(), preset=9))


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


async def make_dump(made: Path) -> None:
    """Leave rows in every state, and write them down while a publisher runs."""
    with EmbeddedPostgres() as server:
        url = server.create_database("shop")
        apply(Database(url), shards=SHARDS)
        async with left_rows(url):
            with psycopg.connect(url, autocommit=True) as connection:
                text = "".join(_dumped(connection))
    (made / DUMP.name).write_text(text, encoding="utf-8")


def _dumped(connection: psycopg.Connection[Any]) -> Iterator[str]:
    yield "-- Made by `make upgrade-pair`; tests/support/upgrade/left_rows.py says what is in it.\n"
    yield "SET TimeZone = 'UTC';\n"
    # The last steps insert rows, which are below.
    yield "".join(f"{step};\n" for step in script("outbox") if "CREATE " in step)
    connection.execute("SET TimeZone = 'UTC'")
    for table, columns in table_columns(connection).items():
        values = ", ', ', ".join(f"quote_nullable({column}::text)" for column in columns)
        query = f"SELECT concat({values}) AS row FROM outbox.{table} ORDER BY {columns[0]}, row"
        rows = connection.execute(query.encode()).fetchall()
        assert rows or table in _NEVER_FULL, f"nothing is in {table}"
        for (row,) in rows:
            yield f"INSERT INTO outbox.{table} ({', '.join(columns)}) VALUES ({row});\n"


if __name__ == "__main__":
    main()
