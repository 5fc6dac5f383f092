"""What a terminal shows of the commands: in the meantime, and at the end, at each width."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.support.commands import run
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.pty_terminal import Terminal, squeezed
from tests.support.writer.refused_topics import writer_of_any_topic

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher.sinks.registry import installed_sinks

WIDTHS = (40, 80, 200)


@pytest.fixture
def events(url: str) -> list[Event]:
    """Four stored events, of two topics; their subjects are wider than a narrow terminal."""
    made = [
        Event.new(name, [Entity("Car", f"car-{n}-{'x' * 40}", {"n": n})])
        for n, name in enumerate(("CarMoved", "CarSold", "CarMoved", "CarMoved"))
    ]
    with writer_of_any_topic(Database(url)) as writer:
        for each in made:
            writer.write(each)
    return made


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.usefixtures("events")
def test_publish_shows_rates_per_topic_and_leaves_nothing_of_them(
    url: str, tmp_path: Path, columns: int
) -> None:
    words = ("publish", "--database", url, "--sink", f"jsonl:{tmp_path / 'out'}")
    with Terminal(columns, *words, env={"NO_COLOR": "1"}) as terminal:
        terminal.until(lambda lines: "/s  event" in lines[-1] and lines[-3].startswith("4 relayed"))
        terminal.press_ctrl_c()
        assert terminal.finish() == 0
    assert terminal.text.startswith("relayingfrom")
    end = (
        "3 shards"
        "finishing the work in progress; Ctrl-C stops immediately"
        "relayed 4, failed 0, dead 0"
        "waiting messages stay in the outbox; run the same command to continue"
    )
    assert terminal.text.endswith(squeezed(end)), terminal.lines
    assert b"\x1b[3" not in terminal.output, "no colour"


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.usefixtures("events")
def test_replay_shows_one_line_that_fits_and_says_how_to_go_on(url: str, columns: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM outbox.outbox")
    words = ("messages", "replay", "--database", url, "--all", "--yes", "--rate", "1")
    with Terminal(columns, *words) as terminal:
        terminal.until(lambda lines: lines[-1].startswith("1 replayed, "))
        assert len(terminal.lines) == 1, terminal.lines
        terminal.press_ctrl_c()
        assert terminal.finish() == 130
    said = ("finishing the work in progress; Ctrl-C stops immediately", "1 replayed, at Car/car-")
    assert terminal.text.startswith(squeezed("".join(said))), terminal.lines
    assert squeezed("not done; run the same command with --after Car/car-") in terminal.text
    assert terminal.text.endswith(squeezed("to continue"))


@pytest.mark.parametrize("columns", [40, 80])
def test_schema_apply_shows_its_step_and_says_how_to_go_on(database_url: str, columns: int) -> None:
    with PostgresProxy(database_url) as proxy:
        held = proxy.hold(matching="outbox_leases (")
        with Terminal(columns, "schema", "apply", "--database", proxy.url) as terminal:
            terminal.until(lambda lines: lines[-1].startswith("applying 0006"))
            held.arrived(10)
            terminal.press_ctrl_c()
            held.release()
            assert terminal.finish() == 130
    assert terminal.text == squeezed(
        "stopped: 6 migrations applied; run the same command to continue"
    ), terminal.lines


def test_a_list_of_messages_fits_a_terminal_of_80_columns(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox.dead_letters SELECT gen_random_uuid(), now(), 0, 1, 0, 'Car', 'a', 1,"
            " 'events.CarMoved', '{}', 2, now(), repeat('too long ', 40), 10, 0"
        )
    with Terminal(80, "messages", "list", "--database", url) as terminal:
        assert terminal.finish() == 0
    shown = [line for line in terminal.output.decode().splitlines() if "Car" in line]
    assert [len(line) <= 80 for line in shown] == [True, True]
    assert shown[1].endswith("…")


@pytest.mark.usefixtures("events")
def test_a_pipe_gets_no_control_characters(url: str, tmp_path: Path) -> None:
    done = run("publish", "--database", url, "--sink", f"jsonl:{tmp_path / 'o'}", "--until-empty")
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) == 2, done.err


@pytest.mark.parametrize("columns", [40, 80])
def test_help_fits_the_terminal(columns: int) -> None:
    done = run("publish", "-h", env={"COLUMNS": str(columns)})
    assert done.code == 0
    lines = done.out.decode().splitlines()
    example = {line for line in lines if line.startswith("    dsql-outbox ")}
    assert max(len(line) for line in lines if line not in example) <= columns
    schemes = {f"{name}:" for name in installed_sinks().names}
    assert schemes <= {word.strip(",.") for word in done.out.decode().split()}


@pytest.mark.parametrize(
    ("words", "meant"),
    [("pubish", "'publish'"), ("messages replai", "'replay'"), ("publish --snik x", "'--sink'")],
)
def test_a_wrong_word_is_answered_with_a_similar_one(words: str, meant: str) -> None:
    done = run(*words.split())
    assert done.code == 2
    assert meant in done.err.splitlines()[-1]


def test_the_first_line_comes_before_what_takes_long_to_import() -> None:
    code = (
        "import sys, click; from dsql_outbox.cli.main import main\n"
        "HEAVY = {'psycopg', 'opentelemetry', 'anyio', 'rich', 'msgspec'}\n"
        "def told(text, **_): print(text, sorted(HEAVY & set(sys.modules)))\n"
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


def test_names_of_commands_are_completed() -> None:
    words = {"COMP_WORDS": "dsql-outbox pu", "COMP_CWORD": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dsql-outbox")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"_DSQL_OUTBOX_COMPLETE": "bash_complete"} | words,
    )
    assert done.stdout.split() == ["plain,publish"]
