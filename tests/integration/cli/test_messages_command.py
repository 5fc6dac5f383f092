"""``dsql-outbox messages`` list, show, retry and drop, as an operator has them."""

import os
import pty
import subprocess
import sys
from functools import partial
from uuid import UUID

import anyio
import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.pty_terminal import Terminal
from tests.support.publisher.given_up_messages import event, relay_all
from tests.support.publisher.running_relays import count

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


def given_up(url: str, *subjects: str, policy: str = "release") -> list[UUID]:
    """Write an event for each subject, and let the broker refuse all of them."""
    events = [event(subject, n) for n, subject in enumerate(subjects)]
    database = Database(url)
    with Writer(database) as writer:
        for each in events:
            writer.write(each)
    ids = [each.id for each in events]
    anyio.run(partial(relay_all, database, MemorySink(), refused=ids, on_dead_letter=policy))
    return ids


def test_a_list_fits_a_terminal_of_80_columns_and_is_whole_in_a_pipe(
    url: str, sql: psycopg.Connection
) -> None:
    given_up(url, "a")
    sql.execute("UPDATE outbox.dead_letters SET error = repeat('too long ', 40)")
    with Terminal(80, "messages", "list", "--database", url) as terminal:
        assert terminal.finish() == 0
    shown = [
        line
        for line in terminal.output.decode().splitlines()
        if "CarMoved" in line or "Car/a" in line
    ]
    assert [len(line) <= 80 for line in shown] == [True, True]
    assert shown[1].endswith("…")
    assert "too long " * 39 in run(url, "messages", "list").stdout


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1)])
def test_on_a_terminal_a_drop_asks(
    url: str, sql: psycopg.Connection, answer: bytes, code: int, left: int
) -> None:
    given_up(url, "a")
    words = ("messages", "drop", "--state", "dead", "--all")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsql_outbox", *words, "--database", url],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, answer)
    _, error = process.communicate(timeout=20)
    os.close(ours)
    assert b"Delete 1 message for good? [y/N]" in error
    assert process.returncode == code
    assert count(sql, "dead_letters") == left
