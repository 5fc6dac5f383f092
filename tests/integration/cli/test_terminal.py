"""What a terminal shows of the commands: in the meantime, and at the end, at each width."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support.commands import run
from tests.support.terminal import Terminal

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.testing import PostgresProxy
from dsql_outbox.writer import Writer, WriterSettings

WIDTHS = (40, 60, 80, 200)


@pytest.fixture
def events(url: str) -> Iterator[list[Event]]:
    """Four stored events, of two topics; their names are as wide as a narrow terminal."""
    made = [
        Event.new(name, name, [Entity("Car", f"car-{n}-{'x' * 40}", {"n": n})])
        for n, name in enumerate(("CarMoved", "CarSold", "CarMoved", "CarMoved"))
    ]
    with Writer(Database(url), WriterSettings(any_topic=True)) as writer:
        for each in made:
            writer.write(each)
    yield made


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.usefixtures("events")
def test_publish_shows_rates_per_topic_and_leaves_nothing_of_them(
    url: str, tmp_path: Path, columns: int
) -> None:
    words = ("publish", "--database", url, "--sink", f"jsonl:{tmp_path / 'out'}")
    with Terminal(columns, *words, env={"NO_COLOR": "1"}) as terminal:
        terminal.until(lambda lines: any("events.CarMoved"[:9] in line for line in lines))
        shown = [line for line in terminal.lines if line]
        terminal.press_ctrl_c()
        assert terminal.finish() == 0
    assert any(line.startswith("4 relayed") for line in shown), shown
    text = "".join(terminal.lines)
    assert "relaying from " in text
    assert "relayed 4, failed 0, dead 0" in text
    assert text.endswith("the same command goes on")
    assert "/s" not in text, "nothing is left of the live lines"
    assert b"\x1b[3" not in terminal.output, "no colour"
    assert terminal.output.rstrip().endswith(b"on"), "the cursor is back before the last line"


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.usefixtures("events")
def test_replay_shows_one_line_that_fits_and_says_how_to_go_on(url: str, columns: int) -> None:
    psycopg.connect(url, autocommit=True).execute("DELETE FROM outbox.outbox")
    words = ("replay", "--database", url, "--all", "--yes", "--rate", "1")
    with Terminal(columns, *words) as terminal:
        terminal.until(lambda lines: any("1 replayed, " in line for line in lines))
        assert len(terminal.lines) == 1, terminal.lines
        terminal.press_ctrl_c()
        assert terminal.finish() == 130
    text = "".join(terminal.lines)
    assert text.startswith("finishing what is in hand; Ctrl-C stops at once"), text
    assert "not done; the same command with --after Car/" in text
    assert text.endswith(" replayed")


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_schema_that_is_being_applied_shows_its_step(database_url: str, columns: int) -> None:
    with PostgresProxy(database_url) as proxy:
        held = proxy.hold(matching="CREATE TABLE IF NOT EXISTS", after=3)
        with Terminal(columns, "schema", "apply", "--database", proxy.url) as terminal:
            terminal.until(lambda lines: "applying 00" in lines[-1])
            terminal.press_ctrl_c()
            code = terminal.finish()
        held.drop()
    assert code == 130
    assert len(terminal.lines) <= 2, terminal.lines
    assert "".join(terminal.lines).endswith("migrations applied; the same command goes on")


@pytest.mark.usefixtures("events")
def test_a_pipe_gets_plain_lines_and_only_when_something_happened(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del monkeypatch
    done = run("publish", "--database", url, "--sink", f"jsonl:{tmp_path / 'o'}", "--until-empty")
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) == 2, done.err


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_help_fits_the_terminal(columns: int) -> None:
    done = run("publish", "-h", env={"COLUMNS": str(columns)})
    assert done.code == 0
    lines = done.out.decode().splitlines()
    example = {line for line in lines if line.startswith("  dsql-outbox ")}
    assert max(len(line) for line in lines if line not in example) <= columns
    assert "kafka:, nats:, sns:, sqs:" in " ".join(done.out.decode().split())


@pytest.mark.parametrize(
    ("words", "meant"),
    [("pubish", "'publish'"), ("read-model rebild", "'rebuild'"), ("publish --snik x", "'--sink'")],
)
def test_a_wrong_word_is_answered_with_a_similar_one(words: str, meant: str) -> None:
    done = run(*words.split())
    assert done.code == 2
    assert meant in done.err.splitlines()[-1]


def test_the_first_line_comes_before_what_takes_long_to_import() -> None:
    code = (
        "import sys, click; from dsql_outbox.cli.main import main\n"
        "echo = click.echo\n"
        "def told(text, **_): echo(f'{text} {sorted(HEAVY & set(sys.modules))}') if 'starts' in text else 0\n"
        "HEAVY = {'psycopg', 'opentelemetry', 'anyio', 'rich', 'msgspec'}\n"
        "click.echo, sys.stderr.isatty = told, lambda: True\n"
        "main(['status', '-h'], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TERM": "xterm"},
    )
    assert done.stdout.splitlines()[0] == "dsql-outbox status starts []", done.stderr


def test_names_of_commands_are_completed_without_importing_them() -> None:
    env = {
        "_DSQL_OUTBOX_COMPLETE": "bash_complete",
        "COMP_WORDS": "dsql-outbox pu",
        "COMP_CWORD": "1",
    }
    command = str(Path(sys.executable).parent / "dsql-outbox")
    done = subprocess.run(
        [command], capture_output=True, text=True, check=False, env=os.environ | env
    )
    assert done.stdout.split() == ["plain,publish"]
