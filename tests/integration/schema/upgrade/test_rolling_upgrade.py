"""Processes of the kept version and of this one on one database: side by side, and back again.

The kept version is a wheel in `tests/data/upgrade`. What is sent is seen by a plain subscriber of
the NATS server, to whom a message that JetStream knows again is one more message.
"""

import json
import signal
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from subprocess import Popen
from typing import Any

import nats
import psycopg
import pytest
from tests.support.commands import Command
from tests.support.publisher.running_relays import relayed, until
from tests.support.upgrade.kept_pair import OldVersion
from tests.support.upgrade.left_rows import SHARDS, car

from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Rejected, Retry
from dsql_outbox.schema import apply
from dsql_outbox.testing import MemorySink, NatsServer
from dsql_outbox.writer import Writer

# Each starts several processes of the old version, which compile all that they import.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.postgres_only("the kept dump is loaded as one text"),
]

LEASE = 2.0
CARS = 6
LEFT = {
    "Car/failing": [2, 3],
    "Car/new": [1],
    "Car/replaying": [1],
    "Car/retried": [2],
    "Car/waiting": [2, 3],
}
"""What a publisher can send of the dump."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldVersion:
    return OldVersion(tmp_path_factory.mktemp("old"))


class Fleet:
    """Publishers and writers of both versions, and what the publishers have sent."""

    def __init__(self, url: str, sink: str, old: OldVersion, sql: psycopg.Connection[Any]) -> None:
        self._old = old
        self._words = ("publish", "--database", url, "--sink", sink, "--lease", LEASE)
        self._sql = sql
        self._numbers = count(1)
        self.stack = ExitStack()
        self.sent: dict[str, dict[int, None]] = {}
        """The versions of each subject, in the order of their first arrivals."""
        self.expected: dict[str, list[int]] = dict(LEFT)
        self._old_writer = self.stack.enter_context(old.started("write", "--database", url))
        self._writer = self.stack.enter_context(Writer(Database(url)))

    async def note(self, message: Any) -> None:
        header = message.headers
        self.sent.setdefault(header["ce-subject"], {})[int(header["ce-sequence"])] = None

    def start_old(self) -> Popen[bytes]:
        return self.stack.enter_context(self._old.started(*self._words))

    def start_new(self) -> Command:
        return self.stack.enter_context(Command(*self._words))

    def owners(self) -> dict[int, int]:
        """How many shards the process of each number owns."""
        query = """SELECT split_part(owner, ':', 2)::int, count(*) FROM outbox.outbox_leases
            WHERE expires_at > clock_timestamp() AND shard < 1024 GROUP BY 1"""
        return dict(self._sql.execute(query).fetchall())

    def write(self) -> None:
        """Events of the same cars by the old writer and the new one at the same time."""
        for _ in range(5):
            ours, theirs = (
                [car(f"both-{n}", next(self._numbers)) for n in range(CARS)] for _ in "12"
            )
            assert self._old_writer.stdin is not None
            self._old_writer.stdin.write(b"".join(each.to_json() + b"\n" for each in theirs))
            self._old_writer.stdin.flush()
            self._writer.write_many(ours)
        for n in range(CARS):
            versions = self.expected.setdefault(f"Car/both-{n}", [])
            versions += range(len(versions) + 1, len(versions) + 11)

    def is_all_sent(self) -> bool:
        return {subject: [*versions] for subject, versions in self.sent.items()} == self.expected


@pytest.fixture
async def fleet(
    dumped: str, sql: psycopg.Connection[Any], old: OldVersion, nats_server: NatsServer
) -> AsyncGenerator[Fleet]:
    fleet = Fleet(dumped, f"{nats_server.url}?stream=EVENTS", old, sql)
    client: Any = await nats.connect(nats_server.url)
    await client.subscribe("events.>", cb=fleet.note)
    with fleet.stack:
        yield fleet
    await client.close()


async def test_old_and_new_processes_share_the_work_and_hand_it_over_in_order(
    dumped: str, fleet: Fleet
) -> None:
    first = fleet.start_old()
    await until(lambda: fleet.owners() == {first.pid: SHARDS})
    apply(Database(dumped))
    new = fleet.start_new()
    shared = {first.pid: SHARDS // 2, new.pid: SHARDS // 2}
    await until(lambda: fleet.owners() == shared)
    fleet.write()
    first.send_signal(signal.SIGTERM)
    fleet.write()
    assert first.wait(60) == 0
    await until(lambda: fleet.owners() == {new.pid: SHARDS})
    await until(fleet.is_all_sent)
    back = fleet.start_old()
    await until(lambda: fleet.owners() == {back.pid: SHARDS // 2, new.pid: SHARDS // 2})
    fleet.write()
    new.signal(signal.SIGTERM)
    fleet.write()
    assert new.wait().code == 0
    await until(lambda: fleet.owners() == {back.pid: SHARDS})
    await until(fleet.is_all_sent)


async def test_the_old_version_goes_on_with_what_this_one_left(
    dumped: str, old: OldVersion, folder: Path
) -> None:
    database = Database(dumped)
    apply(database)
    events = {name: [car(name, n) for n in range(1, 4)] for name in ("dies", "fails", "waits")}
    with Writer(database) as writer:
        writer.write_many([*events["dies"], *events["fails"]])
    sink = MemorySink()
    sink.fail(events["dies"][1].id, Rejected("not for me"))
    sink.fail(events["fails"][1].id, Retry("not now"))
    await relayed(database, sink, backoff_base=60.0)
    with Writer(database) as writer:
        writer.write_many(events["waits"])

    assert old.version in old.run("--version")
    assert old.run("schema", "check", "--database", dumped).endswith("no difference\n")
    old.run("messages", "retry", "--database", dumped, "--all")
    file = folder / "sent.jsonl"
    old.run("publish", "--database", dumped, "--sink", f"jsonl:{file}", "--until-empty")
    sent: dict[str, list[int]] = {}
    for line in file.read_text().splitlines():
        message = json.loads(line)
        sent.setdefault(message["key"], []).append(int(message["headers"]["ce-sequence"]))
    assert sent == {
        "Car/blocked": [2, 3],
        "Car/dead": [2],
        "Car/dies": [2],
        "Car/fails": [2, 3],
        "Car/waits": [1, 2, 3],
    }
