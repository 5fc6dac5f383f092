"""The command `read-model rebuild`; a signal in its middle: tests/faults/publisher."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.publisher.running_relays import event

from dsql_outbox.cli import main
from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer

MODULE = """
async def apply(connection, message):
    await connection.execute("INSERT INTO outbox.inbox VALUES ('a', '', %s, %s, now())",
        (message.dedupe_id, message.dedupe_id))

not_async = print
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rebuilt_model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


def run(url: str, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["read-model", "rebuild", *arguments, "--database", url])
    return done.exit_code, done.output


def test_events_are_applied_and_counted(url: str) -> None:
    with Writer(Database(url)) as writer:
        for n in range(3):
            writer.write(event("a", n))
    with Database(url).connect() as sql:
        sql.execute("DELETE FROM outbox.outbox WHERE subject_version < 3")
    told = run(url, "--apply", "rebuilt_model:apply")
    assert told == (0, "rebuilt: 2 events applied; start the publishers\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rebuilt_model", "is not MODULE:FUNCTION"),
        ("no_such_module:apply", "No module named 'no_such_module'"),
        ("rebuilt_model:none", "has no attribute 'none'"),
        ("rebuilt_model:not_async", "must be an async function"),
    ],
)
def test_a_function_that_is_not_there_is_wrong_usage(url: str, name: str, text: str) -> None:
    code, output = run(url, "--apply", name)
    assert (code, text in output) == (2, True), output


def test_a_place_that_is_none_is_wrong_usage(url: str) -> None:
    code, output = run(url, "--apply", "rebuilt_model:apply", "--after", "Car/a")
    assert (code, "is not a place that a rebuild printed" in output) == (2, True), output
