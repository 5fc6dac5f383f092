"""The lines of `dev`: at every width, in a pipe, and with a log that is being written."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from dsql_outbox.cli.dev.activity import Activity, Counts, _ConflictLog
from dsql_outbox.cli.dev.dev_lines import DevAddresses, DevLines
from dsql_outbox.cli.relay.relay_counts import RelayCounts
from dsql_outbox.operations.status import Bounded
from dsql_outbox.outbox import Database

if TYPE_CHECKING:
    from dsql_outbox.operations import StatusReader

PLACES = DevAddresses(
    database="postgresql://postgres:secret@127.0.0.1:15432/postgres",
    broker="nats://token@127.0.0.1:14222",
    console=None,
    health="http://127.0.0.1:19464/readyz",
    metrics=None,
    folder=Path("/srv/a folder"),
    programs=Path("/opt/some where/bin"),
)
COPIED = ("export ", "dsql-outbox dev --sample", "postgresql://", "`dsql-outbox dev '")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_lines_fit_the_width_but_those_to_be_copied(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = DevLines(as_json=False)
    lines.starting(PLACES.folder)
    lines.note("no console: the console needs the extra [console]: pip install 'x[console]'")
    lines.ready(PLACES)
    lines.change(Counts(1_200, 1_100, 2, 1, 1))
    lines.ended(Counts(), PLACES.folder)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    long = [line for line in shown.splitlines() if len(line) > width]
    assert [line for line in long if not any(part in line for part in COPIED)] == []
    assert "export PATH='/opt/some where/bin':\"$PATH\"" in shown
    assert "console  " not in shown
    words = " ".join(shown.split())
    assert "1,200 written, 1,100 delivered, 2 failed, 1 conflict, 1 dead letter" in words
    assert words.endswith("`dsql-outbox dev '/srv/a folder'` continues with this data")


def test_conflicts_are_counted_from_the_end_of_the_log_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("now [1] SQLSTATE 40001 ERROR:  of an earlier run\n")
    log = _ConflictLog(path)
    assert log.count() == 0
    with path.open("a") as file:
        file.write("now [1] SQLSTATE 40001 ERROR:  could not serialize access\n")
        file.write("now [1] SQLSTATE 23505 ERROR:  duplicate key\nnow [1] SQLSTATE 40")
        file.flush()
        assert log.count() == 1
        file.write("P01 ERROR:  deadlock\nnow [1] SQLSTATE 00000 LOG:  SQLSTATE 40001\n")
        file.write("now [1] SQLSTATE ZZ999 ERROR:  of an extension\n")
    assert log.count() == 2


def test_a_message_that_leaves_the_outbox_while_it_is_read_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "server.log").touch()
    relayed = RelayCounts()

    class Reader:
        async def read_waiting(self) -> Bounded:
            relayed.deleted += 1  # the row that this read has seen
            return Bounded(1, more=False)

    activity = Activity(Database("postgresql://host/name"), tmp_path / "server.log", relayed)
    reader = cast("StatusReader", Reader())
    assert asyncio.run(activity._count_written(reader)) == 1
