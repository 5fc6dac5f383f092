"""The command ``dsql-outbox doctor``, run and read."""

import json
from collections.abc import Mapping
from typing import Any

import psycopg
from click.testing import CliRunner, Result

from dsql_outbox.cli.main import main


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--database", url, *words])


def found(done: Result) -> dict[str, dict[str, Any]]:
    """The findings of a run with --json, by name."""
    report = json.loads(done.stdout)
    assert done.exit_code == (1 if report["failed"] else 0)
    return {finding["name"]: finding for finding in report["findings"]}


def verdicts(told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: finding["verdict"] for name, finding in told.items()}


def scratch_tables(sql: psycopg.Connection[Any]) -> int:
    rows = sql.execute("SELECT count(*) FROM pg_class WHERE relname = 'doctor_scratch'").fetchall()
    return int(rows[0][0])
