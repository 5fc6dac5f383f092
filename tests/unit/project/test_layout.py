"""The shape of the repository: rooms, names, and what a clone must not need."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.support.checkout import PACKAGE, ROOMS, ROOT, copy_checkout, files_of

PUBLIC_HOSTS = {"https://files.pythonhosted.org", "https://pypi.org"}

BARE_ROOM = re.compile(rf"^\s*(from|import) ({'|'.join(ROOMS)})\b", re.MULTILINE)
BESIDE_THE_CLONE = re.compile(r"\.\./shared\b")


def python_files() -> list[Path]:
    return [path for path in files_of() if path.suffix == ".py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_top_level_folder_with_a_relative_link_in_the_package(room: str) -> None:
    link = PACKAGE / room
    assert not (ROOT / room).is_symlink()
    assert link.is_symlink(), "was the clone made by a git that may not make symlinks?"
    assert link.readlink() == Path("..", "..", room)
    assert (link / "__init__.py").is_file()


def test_every_package_at_the_top_is_a_room_that_the_package_links_to() -> None:
    assert sorted(path.parent.name for path in ROOT.glob("*/__init__.py")) == ROOMS
    assert len(ROOMS) == 5


def test_configuration_that_cannot_follow_a_link_names_every_room() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    checked = project["tool"]["basedpyright"]["include"]
    assert {f"src/dsql_outbox/{room}" for room in ROOMS} == set(checked) - {"src", "tests/typing"}
    image = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(image) == sorted([*ROOMS, "src"])
    context = re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted({*context} - {"LICENSE"}) == sorted([*ROOMS, "src"])


def test_every_folder_with_python_in_it_is_a_package() -> None:
    tops = [*(ROOT / room for room in ROOMS), PACKAGE]
    folders = {path.parent for path in python_files() if any(top in path.parents for top in tops)}
    assert len(folders) > len(ROOMS)
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_file_imports_a_room_by_its_bare_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}"
        for path in python_files()
        for match in BARE_ROOM.finditer(path.read_text())
    ]
    assert found == [], "the bare name loads a second copy of every class"


def test_a_clone_stands_alone() -> None:
    beside = [path for path in files_of() if BESIDE_THE_CLONE.search(path.read_text("latin-1"))]
    assert beside == []


def test_a_virtual_environment_inside_the_checkout_is_none_of_its_files(tmp_path: Path) -> None:
    """Whatever its name: the README makes one, and a newcomer another."""
    copy_checkout(ROOT, clone := tmp_path / "clone")
    assert {p.relative_to(clone) for p in files_of(clone)} == {
        p.relative_to(ROOT) for p in files_of()
    }
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / "theirs"], check=True)
    (clone / "theirs" / "lib" / "long.py").write_text("import outbox\n" * 1000)
    (clone / "added.py").write_text("")
    more = {p.relative_to(clone) for p in files_of(clone)} - {
        p.relative_to(ROOT) for p in files_of()
    }
    assert more == {Path("added.py")}


def test_the_lock_file_names_public_hosts_only() -> None:
    hosts = set(re.findall(r"https?://[^/\"]+", (ROOT / "uv.lock").read_text()))
    assert hosts == PUBLIC_HOSTS
