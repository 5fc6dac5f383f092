"""Archives beside writers, replays and fills: each event is in one place, whatever is killed."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from uuid import UUID

import anyio
import psycopg
import pytest
from tests.support.commands import Command
from tests.support.publisher.archived_events import archive, named_without_bytes, texts
from tests.support.publisher.given_up_messages import event, gathered
from tests.support.publisher.running_relays import count, until

from dsql_outbox.outbox import ArchiveError, Database, EventArchived, JobRefused, open_place
from dsql_outbox.publisher import Messages, Publisher, Selection, Targets
from dsql_outbox.publisher.operator import targets as operator_targets
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

EVENTS = 40

ARCHIVE = """
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
import anyio
from dsql_outbox.outbox import Database, JobRefused
from dsql_outbox.publisher import Archives
from dsql_outbox.publisher.life import archive

archive.MAX_ROWS = 13

async def main():
    while True:
        with suppress(JobRefused):
            async with Archives(Database(sys.argv[1])) as tool:
                run = tool.archive(datetime.now(UTC) + timedelta(1), sys.argv[2], lease=0.5)
                async for _ in run:
                    pass
        await anyio.sleep(0.02)

anyio.run(main)
"""


class Archiving:
    """Two processes that archive at once, killed and started again at random moments."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self._words = (url, folder)
        self._stack = stack
        self.two = [self._start(), self._start()]

    def _start(self) -> Command:
        return self._stack.enter_context(Command(*self._words, program=("-c", ARCHIVE)))

    def kill(self, n: int) -> None:
        """Kill one with SIGKILL, and start another in its place."""
        self._kill(n)
        self.two[n] = self._start()

    def end(self) -> None:
        """Kill both."""
        self._kill(0)
        self._kill(1)

    def _kill(self, n: int) -> None:
        self.two[n].signal(signal.SIGKILL)
        assert self.two[n].wait() == (-signal.SIGKILL, b"", "")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
async def test_each_event_is_in_one_place_that_reads_back(
    outbox_url: str,
    tmp_path: Path,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    database, folder, random = Database(outbox_url), tmp_path / "archive", Random(kills)
    sql = stack.enter_context(psycopg.connect(outbox_url, autocommit=True))
    writer = stack.enter_context(Writer(database))
    truth = dict[UUID, str]()

    def write(n: int) -> None:
        written = [event(f"c-{n % 17}", n, f"d-{n % 5}") for n in range(n, n + EVENTS)]
        writer.write_many(written)
        truth.update({each.id: each.to_json().decode() for each in written})
        # Delivered, but for one.
        ids = [each.id for each in written[n == 0 :]]
        sql.execute("DELETE FROM outbox.outbox WHERE event_id = ANY(%s)", (ids,))

    processes = Archiving(outbox_url, folder, stack)
    for n in range(kills):
        write(n * EVENTS)
        files = count(sql, "outbox_archives")
        await until(lambda: count(sql, "outbox_archives") > files)  # noqa: B023
        ids = tuple(random.sample([*truth], 3) + random.sample([*truth][-EVENTS:], 3))
        async with Messages(database) as tool:
            # A file may be on its way: then another replay reads it.
            with suppress(ArchiveError, EventArchived):
                await gathered(tool.replay(Selection(ids=ids), archive=[str(folder)]))
        await anyio.sleep(random.uniform(0, 0.1))  # the moment is what varies
        processes.kill(n % 2)
        assert named_without_bytes(sql) == []
        if n % 10 == 2:
            async with Targets(database) as targets:
                await targets.add(f"t{n}", from_start=True, archive=[str(folder)])
            lake = MemorySink()
            await Publisher(database, lake, target=f"t{n}").run(until_empty=True)
            assert {m.payload.decode() for m in lake.messages} == {*truth.values()}
    processes.end()
    assert texts(sql, folder) == truth

    sql.execute("DELETE FROM outbox.outbox")
    with anyio.fail_after(30):
        while True:
            with suppress(JobRefused):
                await archive(database, folder)
                break
            await anyio.sleep(0.1)
    assert texts(sql, folder) == truth
    rows = sql.execute("SELECT archive FROM outbox.business_events WHERE archive IS NULL")
    assert rows.fetchall() == []
    named = {row[0] for row in sql.execute("SELECT file FROM outbox.outbox_archives")}
    assert {name for name in open_place(str(folder)).files() if name.endswith(".zst")} == named
