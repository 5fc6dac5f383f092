"""What commands print on a database with content fits the terminal, and a pipe gets it unfolded."""

import json
import re
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from click.testing import CliRunner

from dsql_outbox.cli.main import main
from dsql_outbox.cli.output import columns
from dsql_outbox.operations import Targets, Topics
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

REASON = "the partner is under maintenance until Monday, see ticket OPS-4711 of the platform team"
ERROR = "nats: no response from stream EVENTS within 5 s (nats://nats-0.nats.shop.svc:4222): 503"
OWNER = "shop-publisher-7d9f8b6c5-x2k4q-1-3fa9c1"
EVENT = UUID("a53af127-f2a3-4a11-9ccf-664984d0f806")
COMMANDS = [
    "status",
    "targets list",
    "topics list",
    "operations",
    f"messages show {EVENT}",
    f"event {EVENT}",
    "messages replay --all --dry-run --yes",
    "schema check",
    "verify",
    "doctor",
]


async def paused(database: Database) -> None:
    async with Targets(database) as targets:
        await targets.add("warehouse")
    async with Topics(database) as topics:
        await topics.pause("events.LoanPaymentSubmitted", REASON)


@pytest.fixture
def shard(outbox_url: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The shard of a message for another target, which has failed, as all else has."""
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    anyio.run(paused, Database(outbox_url))
    with Writer(Database(outbox_url)) as writer:
        event = Event.new("LoanPaymentSubmitted", [Entity("Loan", "LOAN-2026-000001")], id=EVENT)
        writer.write(event)
    with psycopg.connect(outbox_url) as sql:
        sql.execute(
            """INSERT INTO outbox.outbox_failures
               SELECT shard, position, event_id, 7, %s, now() + interval '1 h'
               FROM outbox.outbox""",
            [ERROR],
        )
        sql.execute(
            "INSERT INTO outbox.outbox_publishers VALUES"
            " (%s, now() - interval '1 h', 30, '[]', 'warehouse', NULL)",
            [OWNER],
        )
        sql.execute("UPDATE outbox.outbox_leases SET owner = %s, expires_at = now()", [OWNER])
        sql.execute("UPDATE outbox.entities SET version = 2")
        ((found,),) = sql.execute("SELECT shard FROM outbox.outbox WHERE shard > 1023").fetchall()
    return int(found)


def printed(url: str, command: str, **env: str) -> list[str]:
    done = CliRunner(env=env).invoke(main, [*command.split(), "--database", url])
    assert done.exit_code in {0, 1}, done.output
    return done.output.splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_no_command_prints_a_line_that_the_terminal_wraps(
    outbox_url: str, shard: int, width: int
) -> None:
    """A command to copy is left in one line."""
    assert shard
    for command in COMMANDS:
        lines = printed(outbox_url, command, COLUMNS=str(width))
        long = [line for line in lines if len(line) > width]
        assert [line for line in long if not line.lstrip().startswith("dsql-outbox ")] == []


def test_a_pipe_gets_each_row_in_one_line(outbox_url: str, shard: int) -> None:
    rows = [line.split() for line in printed(outbox_url, "status")]
    failed = [row for row in rows if row[:1] == [str(EVENT)]]
    assert ["warehouse"] in [row[2:3] for row in failed]
    assert [row[-len(ERROR.split()) :] for row in failed] == [ERROR.split()] * 2
    assert [*REASON.split()] in [row[-len(REASON.split()) :] for row in rows]
    assert [str(shard), "warehouse"] in [row[:2] for row in rows]


def test_a_shard_has_one_name(outbox_url: str, shard: int) -> None:
    """In tables, JSON and sentences it is the number that the table of messages has."""
    found: Any = json.loads(printed(outbox_url, "status --json")[0])
    assert shard in [each["shard"] for each in found["failures"]["worst"]]
    kept = [json.loads(line) for line in printed(outbox_url, "messages list --json")]
    assert (shard, "warehouse") in [(each["shard"], each["target"]) for each in kept]
    for command in (f"event {EVENT}", f"messages show {EVENT}", "status"):
        text = "\n".join(printed(outbox_url, command))
        assert re.search(rf"(?<![\w/]){shard}\b", text), text
        assert "warehouse/" not in text


def test_a_table_loses_no_word_where_it_is_folded() -> None:
    table = [("a", "name", "text"), ("1", "x" * 30, ERROR), ("22", "y y y", "short")]
    for width in range(20, 120):
        lines = columns(table, width)
        assert max(map(len, lines)) <= width
        found = "".join("".join(lines).split())
        assert sorted(found) == sorted(
            "".join("".join(cell for row in table for cell in row).split())
        )
    assert columns(table) == columns(table, 1_000)
    assert len(columns(table)) == len(table)
