"""``publish --map``, and ``messages show --map``, which tries a map without a broker."""

import json
import re
import signal
from base64 import b64decode
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from tests.support.commands import Command
from tests.support.publisher.given_up_messages import event

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Event
from dsql_outbox.writer import Writer

MAPS = """
from dsql_outbox.publisher import TOMBSTONE, Refuse, WireForm


def flat(message):
    return {"car": message.key}


def binary(message):
    return WireForm(b"\\x00\\xff", "application/avro", attributes={"schema": "7", "entities": None},
        headers={"__TypeId__": "car"}, key="a", topic="v2.cars")


def deletes(message):
    return TOMBSTONE


def skips(message):
    return None


def refuses(message):
    return Refuse("no order number")


def raises(message):
    raise KeyError(message.payload)


def two(message, connection):
    return b""


async def asynchronous(message):
    return b""


class Registry:
    schema = None

    def open(self):
        self.schema = "8"

    def __call__(self, message):
        return self.schema


registry = Registry()
number = 5
"""


@pytest.fixture
def maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of maps."""
    name = f"maps_{uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(MAPS)
    (tmp_path / f"{name}_broken.py").write_text('import os\nos.environ["Hunter2"]\n')
    (tmp_path / f"{name}_unclear.py").write_text("password = 'Hunter2\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def stored(url: str) -> list[Event]:
    events = [event("a", n) for n in range(3)]
    with Writer(Database(url)) as writer:
        for each in events:
            writer.write(each)
    return events


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


def published(url: str, name: str) -> Result:
    return run(url, "publish", "--sink", "stdout:", "--until-empty", "--max-wait", 0, "--map", name)


def shown(url: str, event_id: UUID, name: str) -> dict[str, Any]:
    done = run(url, "messages", "show", event_id, "--map", name, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_publish_sends_what_the_map_makes(
    url: str, maps: str, stored: list[Event], capfd: pytest.CaptureFixture[str]
) -> None:
    done = published(url, f"{maps}:flat")
    assert done.exit_code == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["payload"] for line in lines] == ['{"car":"Car/a"}'] * len(stored)


@pytest.mark.usefixtures("stored")
def test_publish_counts_what_the_map_leaves_out(
    url: str, maps: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = published(url, f"{maps}:skips")
    assert (done.exit_code, capfd.readouterr().out) == (0, "")
    assert "relayed 0, skipped 3, failed 0, dead 0" in done.stderr


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("{}", "is not MODULE:FUNCTION, such as shop.contracts:to_message"),
        ("{}:none", "has no attribute 'none'"),
        ("{}_none:flat", "No module named"),
        ("{}_broken:flat", "the module raised KeyError at"),
        ("{}_broken:flat", "_broken.py:2"),  # and no line of module os
        ("{}_unclear:flat", "_unclear.py:1"),
        ("{}:number", "takes a function of a message as its map, not int"),
        ("{}:two", "must take one argument, the message"),
        ("{}:asynchronous", "must be a plain function: def, and not async def"),
        ("{}:Registry", "not a class: map=Registry()"),
    ],
)
def test_what_is_no_map_is_refused_before_anything_is_read(
    sql: psycopg.Connection, maps: str, name: str, text: str
) -> None:
    given = name.format(maps)
    unreachable = "postgresql://127.0.0.1:1/none"
    for done in (
        published(unreachable, given),
        run(unreachable, "messages", "show", uuid4(), "--map", given),
    ):
        assert done.exit_code == 2
        assert "".join(text.split()) in "".join(done.stderr.replace("│", "").split())
        assert "Hunter2" not in done.stderr
    assert len(sql.execute("SELECT FROM outbox.outbox").fetchall()) == 3


def test_map_and_apply_are_refused_together(url: str, maps: str) -> None:
    done = run(url, "publish", "--apply", f"{maps}:asynchronous", "--map", f"{maps}:flat")
    assert (done.exit_code, "--map needs --sink" in done.stderr) == (2, True)


@pytest.mark.parametrize("is_delivered", [False, True])
def test_show_prints_both_forms(
    url: str, maps: str, stored: list[Event], is_delivered: bool
) -> None:
    if is_delivered:
        assert published(url, f"{maps}:skips").exit_code == 0
    event_id = stored[1].id
    found = shown(url, event_id, f"{maps}:binary")
    before, after = found["stored"], found["mapped"]
    assert json.loads(before["payload"])["eventHeader"]["uuid"] == str(event_id)
    assert before["contentType"] == "application/json"
    assert before["headers"]["entities"] == "Car/a@2"
    assert (after["contentType"], b64decode(after["base64"])) == ("application/avro", b"\x00\xff")
    changed = {"schema": "7", "datacontenttype": "application/avro"}
    expected = before["headers"] | changed
    del expected["entities"]
    assert after["headers"] == expected
    assert after["wireHeaders"] == {"__TypeId__": "car"}
    assert (before["key"], after["key"], after["topic"]) == ("Car/a", "a", "v2.cars")
    deleted = shown(url, event_id, f"{maps}:deletes")["mapped"]
    assert deleted.keys() == {"topic", "key", "contentType", "headers"}
    assert deleted["contentType"] is None

    text = run(url, "messages", "show", event_id, "--map", f"{maps}:flat").stdout
    assert re.search(r'\n  payload +{"car":"Car/a"}', text)
    assert "eventHeader" in text


def test_show_opens_a_map_says_what_it_leaves_out_and_fails_with_it(
    url: str, maps: str, stored: list[Event]
) -> None:
    event_id = stored[0].id
    assert shown(url, event_id, f"{maps}:registry")["mapped"]["payload"] == "8"
    skipped = shown(url, event_id, f"{maps}:skips")
    assert (skipped["skipped"], "mapped" in skipped) == (True, False)
    refused = run(url, "messages", "show", event_id, "--map", f"{maps}:refuses")
    assert refused.exit_code == 1
    assert refused.stdout.endswith("mapped  refused: no order number\n")
    raised = run(url, "messages", "show", event_id, "--map", f"{maps}:raises")
    assert raised.exit_code == 1
    assert "the map raised KeyError" in raised.stderr
    assert "raises" in raised.stderr
    assert "eventHeader" not in raised.stderr
    unknown = run(url, "messages", "show", uuid4(), "--map", f"{maps}:flat")
    assert (unknown.exit_code, "no event has the id" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_publisher_whose_map_is_being_opened(
    url: str, tmp_path: Path, number: signal.Signals
) -> None:
    """As of a registry that does not answer: its thread keeps no process."""
    (tmp_path / "silent.py").write_text(
        "import threading\n\n\nclass Silent:\n    def open(self):\n"
        "        print('opening', flush=True)\n        threading.Event().wait()\n\n"
        "    def __call__(self, message):\n        return message\n\n\nsilent = Silent()\n"
    )
    words = ["publish", "--database", url, "--sink", "stdout:", "--map", "silent:silent"]
    with Command(*words, env={"PYTHONPATH": str(tmp_path)}) as command:
        assert command.line() == b"opening\n"
        command.signal(number)
        assert command.finish().code == 0
