"""docs/dead-letters.md, run: its commands and its Python work as they stand there."""

import re
import shlex
import textwrap
from typing import Any
from uuid import UUID

import anyio
import pytest
from click.testing import CliRunner
from tests.support.checkout import ROOT
from tests.support.publisher.given_up_messages import event

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

TEXT = (ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ dsql-outbox (.*)$", TEXT, re.MULTILINE)


@pytest.fixture
def database(outbox_url: str) -> Database:
    database = Database(outbox_url)
    with Writer(database) as writer:
        loan = Entity("Loan", "LOAN-7")
        stored = UUID("5f0c6a1e-6c3e-4a0a-9f43-000000000001")
        writer.write(Event.new("LoanCreated", [loan], id=stored))
        writer.write(event())
    return database


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str, database: Database, outbox_url: str) -> None:
    assert database
    words = shlex.split(command)
    if words[1:3] == ["replay", "--type"]:
        words.append("--yes")
    done = CliRunner().invoke(main, [*words, "--database", outbox_url])
    assert done.exit_code in {0, 1}, done.stderr
    assert "Error" not in done.stderr


def test_the_python_runs(database: Database) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"database": database}
    exec(f"async def example():\n{textwrap.indent(code, '    ')}", names)
    anyio.run(names["example"])
