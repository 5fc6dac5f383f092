"""A start that is killed while initdb runs leaves no process, and the next start works."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.support.waiting import wait_until

from dsql_outbox.servers import postgres_server
from dsql_outbox.testing import EmbeddedPostgres

# It makes half of a data folder, and does not end by the signal of its guard.
_INITDB = (
    "#!/bin/sh\ntrap '' INT\n"
    'mkdir "$2" "$2/base" && echo $$ > "$2/PG_VERSION" && exec sleep 600\n'
)
_START = (
    "import sys; from pathlib import Path\n"
    "from dsql_outbox.testing import EmbeddedPostgres\n"
    "EmbeddedPostgres(Path(sys.argv[1])).start()"
)


@pytest.fixture
def slow_programs(folder: Path) -> Path:
    programs = folder / "programs"
    programs.mkdir(mode=0o755)
    for name in ("initdb", "postgres"):
        (programs / name).write_text(_INITDB)
        (programs / name).chmod(0o755)
    return programs


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_start_killed_during_initdb_is_done_again(
    folder: Path, slow_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one waits until that initdb has ended."""
    scratch, data = folder / "scratch", folder / "data"
    scratch.mkdir(mode=0o755)
    pid_file = data / "new" / "PG_VERSION"
    environment = {"TMPDIR": str(scratch), "DSQL_OUTBOX_POSTGRES": str(slow_programs)}
    with subprocess.Popen(
        [sys.executable, "-c", _START, data], env=os.environ | environment
    ) as starter:
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", timeout=30)
        initdb = int(pid_file.read_text())
        assert not is_gone(initdb)
        starter.kill()

    def sleep_and_end_it(_: float) -> None:
        if not is_gone(initdb):
            os.kill(initdb, signal.SIGKILL)

    monkeypatch.setattr(postgres_server, "sleep", sleep_and_end_it)
    with EmbeddedPostgres(data, settings={"fsync": "off"}) as server:
        assert is_gone(initdb)
        psycopg.connect(server.url).close()
    wait_until(lambda: list(scratch.iterdir()) == [])


def test_a_folder_that_others_may_enter_becomes_private(folder: Path) -> None:
    (folder / "data").mkdir(mode=0o755)
    with EmbeddedPostgres(folder / "data", settings={"fsync": "off"}) as server:
        psycopg.connect(server.url).close()
    assert (folder / "data").stat().st_mode & 0o077 == 0
