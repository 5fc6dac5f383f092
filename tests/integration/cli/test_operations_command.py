"""``dsql-outbox operations``: what it lists, and which commands record themselves."""

import json
from functools import partial

import anyio
import pytest
from click.testing import CliRunner
from tests.support.publisher.given_up_messages import event, relay_all

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer


def test_commands_record_the_user_of_the_process_and_list_it(
    outbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    database = Database(outbox_url)
    with Writer(database) as writer:
        ids = [writer.write(event(name)).event_id for name in "ab"]
    anyio.run(partial(relay_all, database, MemorySink(), refused=ids))
    run = partial(CliRunner().invoke, main, env={"DSQL_OUTBOX_DATABASE": outbox_url})
    assert run(["operations"]).stdout == "no operations\n"
    for words in (
        ["topics", "pause", "orders", "--reason", "ticket 77"],
        ["topics", "resume", "orders", "--reason", "done"],
        ["messages", "retry", "--id", str(ids[0]), "--reason", "mended"],
        ["messages", "drop", "--state", "dead", "--all", "--yes", "--reason", "known"],
        ["messages", "replay", str(ids[1]), "--reason", "asked for"],
        ["schema", "apply", "--shards", "17", "--reason", "growth"],
    ):
        done = run(words)
        assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in run(["operations", "--json"]).stdout.splitlines()]
    assert [(each["verb"], each["object"], each["reason"]) for each in reversed(found)] == [
        ("topics pause", "orders", "ticket 77"),
        ("topics resume", "orders", "done"),
        ("messages retry", "", "mended"),
        ("messages drop", "", "known"),
        ("messages replay", "", "asked for"),
        ("schema apply", "17 shards", "growth"),
    ]
    assert {each["userName"] for each in found} == {"carol"}
    newest = run(["operations", "--limit", "1"]).stdout.splitlines()
    assert len(newest) == 2
    assert newest[1].split()[1:5] == ["schema", "apply", "17", "shards"]
