"""The example for Django: its own tests, on a database that Django makes and drops."""

import os
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest
from tests.support.checkout import ROOT

pytestmark = pytest.mark.slow

PROJECT = ROOT / "examples" / "django"


def test_the_project_migrates_and_its_tests_pass(database_url: str) -> None:
    parts = urlsplit(database_url)
    environment = os.environ | {
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGPASSWORD": unquote(str(parts.password)),
        "PGDATABASE": parts.path[1:],
        "PYTHONWARNINGS": "error",
    }

    def manage(*words: str) -> str:
        run = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=PROJECT,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout + run.stderr

    manage("makemigrations", "--check")
    manage("migrate")
    assert "identified no issues" in manage(
        "check", "--database", "default", "--fail-level=WARNING"
    )
    assert "Destroying test database" in manage("test")
    assert "Unapplying outbox.0001" in manage("migrate", "outbox", "zero")
