"""Folders for the embedded servers."""

from pathlib import Path
from subprocess import run

import pytest

from dsql_outbox.servers import postgres_server
from dsql_outbox.testing import EmbeddedPostgres


@pytest.fixture(autouse=True)
def temporary_files_in_the_quick_folder(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make temporary files where a new database is quick."""
    monkeypatch.setenv("TMPDIR", str(quick_folder))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture(scope="session")
def made_once(quick_folder: Path) -> Path:
    """The data of a new server."""
    data = quick_folder / "initialized"
    with EmbeddedPostgres(data, settings={"fsync": "off"}) as server:
        log = server.log
    log.unlink()
    return data


@pytest.fixture
def copied_data(made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the data of a new server: initdb takes most of the time of a start."""

    def copy(_: EmbeddedPostgres, _programs: Path, folder: Path, *_more: object) -> None:
        postgres_server.hand_over(folder)
        run(["cp", "-a", f"{made_once}/.", folder], check=True)

    monkeypatch.setattr(EmbeddedPostgres, "_initialize", copy)
