"""Archives beside writers, replays and fills: each event is in one place, whatever is killed."""

import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from anyio import to_thread
from tests.support.commands import Command
from tests.support.operations.archive_files import files
from tests.support.operations.archived_events import archive, forget, named_without_bytes, texts
from tests.support.publisher.given_up_messages import event, gathered
from tests.support.publisher.running_relays import count, until
from tests.support.verified import findings_in

from dsql_outbox.operations import Messages, Selection, Targets
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.life import archive as archive_module
from dsql_outbox.outbox import ArchiveError, Database, EventArchived, JobRefused
from dsql_outbox.publisher import Publisher
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
from dsql_outbox.operations import Archives
from dsql_outbox.operations.life import archive, job

archive.MAX_ROWS, job.LEASE = 13, 0.5

async def main():
    while True:
        with suppress(JobRefused):
            async with Archives(Database(sys.argv[1])) as tool:
                run = tool.archive(datetime.now(UTC) + timedelta(1), sys.argv[2])
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


@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
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
    await when_free(lambda: archive(database, folder, rate=1e6))
    assert texts(sql, folder) == truth
    rows = sql.execute("SELECT archive FROM outbox.business_events WHERE archive IS NULL")
    assert rows.fetchall() == []
    assert_only_named_files(sql, folder)


FORGET = """
import os, signal, sys
from contextlib import suppress
from datetime import datetime
import anyio
from dsql_outbox.outbox import Database, JobRefused
from dsql_outbox.operations import Retention
from dsql_outbox.operations.life import job

job.LEASE = 0.5
url, folder, before, left, *actions = *sys.argv[1:4], int(sys.argv[4]), *sys.argv[5:]

def die(action, words):
    global left
    if action in actions and str(words[0]).startswith(folder):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    sys.addaudithook(die)
    while True:
        with suppress(JobRefused):
            async with Retention(Database(url)) as tool:
                await tool.forget(datetime.fromisoformat(before), archive=folder)
        await anyio.sleep(0.02)

anyio.run(main)
"""
"""Forgets again and again, and kills itself before its n-th file action of the given kinds."""

ACTIONS = ("open", "os.rename", "os.remove")
"""Between two of these, a job only reads or commits."""


@pytest.mark.parametrize("moments", [[11], pytest.param(range(1, 19, 3), marks=pytest.mark.slow)])
async def test_an_event_that_a_killed_job_was_to_forget_is_whole_or_gone(
    outbox_url: str,
    tmp_path: Path,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    moments: Sequence[int],
) -> None:
    monkeypatch.setattr(archive_module, "MAX_ROWS", 13)
    database, folder = Database(outbox_url), tmp_path / "archive"
    sql = stack.enter_context(psycopg.connect(outbox_url, autocommit=True))
    writer = stack.enter_context(Writer(database))
    named, young, cut = set[UUID](), list[UUID](), datetime.now(UTC)

    def write() -> list[UUID]:
        written = [event(f"c-{n % 17}", n, f"d-{n % 5}") for n in range(EVENTS // 2)]
        writer.write_many(written)
        ids = [each.id for each in written]
        sql.execute("DELETE FROM outbox.outbox WHERE event_id = ANY(%s)", (ids,))
        return ids

    for moment in moments:
        old, cut, young = write(), datetime.now(UTC), write()
        await when_free(lambda: archive(database, folder, rate=1e6))
        named.update(old[:3])
        async with Messages(database) as tool:
            await gathered(tool.replay(Selection(ids=tuple(old[:3])), archive=[str(folder)]))
        before = texts(sql, folder)

        words = (outbox_url, folder.resolve(), cut.isoformat())
        for each in [
            stack.enter_context(Command(*words, n, *ACTIONS, program=("-c", FORGET)))
            for n in (moment, moment + 1)
        ]:
            assert await to_thread.run_sync(each.wait) == (-signal.SIGKILL, b"", "")
        after = texts(sql, folder)
        assert after.items() <= before.items()
        assert {*named, *young} <= after.keys()
        assert await findings_in(database, folder) == []

    await when_free(lambda: forget(database, folder, before=cut, rate=1e6))
    assert texts(sql, folder).keys() == {*named, *young}
    assert await findings_in(database, folder) == []
    assert_only_named_files(sql, folder)


@pytest.mark.parametrize("young", [0, 3])
async def test_the_old_file_goes_though_its_job_was_killed_after_the_commit(
    outbox_url: str, tmp_path: Path, stack: ExitStack, young: int
) -> None:
    """No row names it, so only the next job can know of it."""
    database, folder = Database(outbox_url), tmp_path / "archive"
    sql = stack.enter_context(psycopg.connect(outbox_url, autocommit=True))
    writer = stack.enter_context(Writer(database))
    writer.write_many([event(f"c-{n}", n, "d") for n in range(3)])
    cut = datetime.now(UTC)
    kept = writer.write_many([event(f"c-{n}", n, "d") for n in range(young)])
    sql.execute("DELETE FROM outbox.outbox")
    await when_free(lambda: archive(database, folder, rate=1e6))
    words = (outbox_url, folder.resolve(), cut.isoformat(), 1, "os.remove")
    killed = stack.enter_context(Command(*words, program=("-c", FORGET)))
    assert await to_thread.run_sync(killed.wait) == (-signal.SIGKILL, b"", "")
    assert texts(sql, folder).keys() == {each.event_id for each in kept}
    assert len(archives(folder)) == 1 + (young > 0)
    await when_free(lambda: archive(database, folder, rate=1e6))
    assert_only_named_files(sql, folder)


async def when_free(job: Callable[[], Awaitable[Any]]) -> None:
    """Do a job when the lease of a killed one has ended."""
    with anyio.fail_after(30):
        while True:
            with suppress(JobRefused):
                await job()
                return
            await anyio.sleep(0.1)


def assert_only_named_files(sql: psycopg.Connection, folder: Path) -> None:
    """Fail if a killed job left a file that no row names."""
    named = {row[0] for row in sql.execute("SELECT file FROM outbox.outbox_archives")}
    assert archives(folder) == named


def archives(folder: Path) -> set[str]:
    """The names of the files of events in a folder, whole or not."""
    return {name for name in files(str(folder)) if ".jsonl" in name}
