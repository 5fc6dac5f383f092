"""Archives beside writers, replays and fills: each event is in one place, whatever is killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import anyio
import psycopg
import pytest
from tests.support.checkout import ROOT
from tests.support.publisher.archived_events import archive, named_without_bytes, texts
from tests.support.publisher.given_up_messages import event, gathered
from tests.support.publisher.running_relays import count, until

from dsql_outbox.outbox import ArchiveError, Database, EventArchived, JobRefused, open_place
from dsql_outbox.publisher import Messages, Publisher, Selection, Targets
from dsql_outbox.publisher.operator import targets as operator_targets
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio

EVENTS = 600

ARCHIVE = """
import sys
from datetime import UTC, datetime, timedelta
import anyio
from dsql_outbox.outbox import Database, JobRefused
from dsql_outbox.publisher import Archives
from dsql_outbox.publisher.life import archive

archive.MAX_ROWS = 13

async def main():
    while True:
        try:
            async with Archives(Database(sys.argv[1])) as tool:
                run = tool.archive(datetime.now(UTC) + timedelta(1), sys.argv[2], lease=0.5)
                async for _ in run:
                    pass
                return
        except JobRefused:
            await anyio.sleep(0.02)

anyio.run(main)
"""


class Archiving:
    """Two processes that archive at once, killed and started again at random moments."""

    def __init__(self, url: str, folder: Path, stack: ExitStack) -> None:
        self._command = [sys.executable, "-c", ARCHIVE, url, str(folder)]
        self._stack = stack
        self.two = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._stack.enter_context(subprocess.Popen(self._command, cwd=ROOT))
        self._stack.callback(process.kill)
        return process

    @property
    def are_done(self) -> bool:
        """Whether both have archived all that they could."""
        return all(process.poll() is not None for process in self.two)

    def kill(self, n: int) -> None:
        """Kill one with SIGKILL, and start another in its place."""
        self.two[n].kill()
        self.two[n].wait()
        self.two[n] = self._start()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
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
    with Writer(database) as writer:
        written = [event(f"c-{n % 17}", n, f"d-{n % 5}") for n in range(EVENTS)]
        writer.write_many(written)
    truth = {each.id: each.to_json().decode() for each in written}
    sql.execute("DELETE FROM outbox.outbox WHERE event_id <> %s", (written[0].id,))

    processes = Archiving(outbox_url, folder, stack)
    for n in range(kills):
        files = count(sql, "outbox_archives")
        await until(lambda: count(sql, "outbox_archives") > files or processes.are_done)  # noqa: B023
        await anyio.sleep(random.uniform(0, 0.1))  # the moment is what varies
        processes.kill(n % 2)
        ids = tuple(each.id for each in random.sample(written, 5))
        async with Messages(database) as tool:
            # A file may be on its way: then another replay reads it.
            with suppress(ArchiveError, EventArchived):
                await gathered(tool.replay(Selection(ids=ids), archive=[str(folder)]))
        assert named_without_bytes(sql) == []
        if n % 3 == 2:
            async with Targets(database) as targets:
                await targets.add(f"t{n}", from_start=True, archive=[str(folder)])
            lake = MemorySink()
            await Publisher(database, lake, target=f"t{n}").run(until_empty=True)
            assert {m.payload.decode() for m in lake.messages} == {*truth.values()}
    for process in processes.two:
        process.wait(60)
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
