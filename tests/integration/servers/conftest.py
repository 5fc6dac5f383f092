"""Folders for the embedded servers."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest


@pytest.fixture(autouse=True)
def temporary_files_in_the_quick_folder(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make temporary files where a new database is quick."""
    monkeypatch.setenv("TMPDIR", str(quick_folder))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def folder(quick_folder: Path) -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own when root runs the tests."""
    path = Path(mkdtemp(dir=quick_folder))
    path.chmod(0o755)
    yield path
    rmtree(path)
