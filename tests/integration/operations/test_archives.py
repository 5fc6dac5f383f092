"""Archives on the real tables: an event is in one place, which gives its bytes back."""

import errno
import os
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest
from anyio import from_thread
from tests.support.brokers.sqs_server import CREDENTIALS, SqsServer, client
from tests.support.operations.archive_files import files
from tests.support.operations.archived_events import archive, forget, later, texts
from tests.support.publisher.given_up_messages import event, gathered, relay_all
from tests.support.publisher.running_relays import count
from tests.support.verified import findings_in

from dsql_outbox.operations import Erasures, Messages, Operations, Retention, Selection, Targets
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.operations.life.archives import Archives
from dsql_outbox.operations.operations import Operation
from dsql_outbox.operations.replay import StoredEvents
from dsql_outbox.outbox import (
    ArchiveError,
    Database,
    DuplicateEvent,
    Entity,
    Event,
    EventArchived,
    JobRefused,
    SettingsError,
)
from dsql_outbox.outbox.archive import place as places
from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.file_rules import MARKER, new_file_name
from dsql_outbox.outbox.archive.place import open_place
from dsql_outbox.publisher import Publisher
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = pytest.mark.anyio

KEPT = """SELECT id, event_name, event_type, created_date, saved_date, event_size, fingerprint,
    write_id, subject_type, subject_id, subject_version, shard, position, previous_position, topic,
    touches::text, erased_at FROM outbox.business_events ORDER BY id"""
FACTS = (
    *("number", "file", "events", "first_id", "last_id", "oldest_at", "newest_at", "file_size"),
    *("sha256", "content_sha256"),
)
FILE = f"SELECT {', '.join(FACTS)} FROM outbox.outbox_archives"
OWN = {"tenant": "a,\u00e9"}


@pytest.fixture(autouse=True)
def _quick_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "archive"


@pytest.fixture(scope="module")
def s3() -> Generator[str]:
    """The URL of an S3 that is not Amazon's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with SqsServer() as server:
            client(server.endpoint, "s3").create_bucket(
                Bucket="events", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
            )
            yield f"s3://events/{{}}?region=eu-west-1&endpoint={server.endpoint}"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def to(request: pytest.FixtureRequest, folder: Path) -> str:
    """A place for archives, which is empty."""
    if request.param == "folder":
        return str(folder)
    url: str = request.getfixturevalue("s3")
    return url.format(f"a/{uuid4().hex}")


def archives(place: object) -> list[str]:
    """The names of the files of events in a place."""
    return [name for name in files(str(place)) if name.endswith(".zst")]


async def sent(database: Database) -> None:
    """Let every message leave the outbox."""
    await relay_all(database, MemorySink())


@pytest.mark.parametrize("to", ["folder", "s3"], indirect=True)
async def test_archived_events_keep_all_but_their_bytes_which_the_file_gives_back(
    database: Database, writer: Writer, sql: psycopg.Connection, to: str
) -> None:
    events = [event(f"c-{n % 7}", n, "z") for n in range(40)]
    events += [Event.new("Odd", [Entity("Car", "o\n", {"t": "\u2028\x7f"})], headers=OWN)]
    for each in events:
        writer.write(each)
    writer.write(
        b'{"eventHeader": {"uuid":\r\n"%b", "eventName": "R"}, "entities": [{"entityHeader":'
        b' {"entityType": "Car", "entityId": "r"}, "a": 1e200000, "a": "\\u2028"}]}'
        % str(uuid4()).encode()
    )
    await sent(database)
    before, rows = texts(sql), sql.execute(KEPT).fetchall()
    headers = sql.execute("SELECT event_id, header_data::text FROM outbox.event_headers").fetchall()

    done = await archive(database, to)

    assert (done.events, done.bytes) == (len(before), sum(len(t.encode()) for t in before.values()))
    assert sql.execute(
        "SELECT count(event_data), count(archive) FROM outbox.business_events"
    ).fetchone() == (0, 42)
    assert texts(sql, to) == before
    assert sql.execute(KEPT).fetchall() == rows
    place, (name,) = open_place(to), archives(to)
    facts = ArchiveFile(**dict(zip(FACTS, sql.execute(FILE).fetchone() or (), strict=True)))
    assert facts.file == name
    found = {(e.id, text) for e in facts.read(place) for text in e.header_data}
    assert found == set(headers)
    assert [e.headers for e in facts.read(place) if e.headers] == ['{"tenant":"a,\u00e9"}']


async def test_what_a_row_names_stays(
    database: Database, writer: Writer, sql: psycopg.Connection, folder: Path
) -> None:
    dead, replayed, sent_, young, waiting = (writer.write(event(c)).event_id for c in "abcde")
    sql.execute("DELETE FROM outbox.outbox WHERE event_id = %s", (waiting,))
    await relay_all(database, MemorySink(), refused=[dead])
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=(replayed, waiting))))
    old = datetime.now(UTC) - timedelta(days=30)
    sql.execute("UPDATE outbox.business_events SET saved_date = %s WHERE id <> %s", (old, young))
    done = await archive(database, folder, old + timedelta(days=1))
    assert (done.events, done.read) == (1, 5)
    assert sql.execute("SELECT id FROM outbox.business_events WHERE archive > 0").fetchall() == [
        (sent_,)
    ]
    row = sql.execute("SELECT archived, oldest_at, owner FROM outbox.outbox_jobs").fetchone()
    assert row == (1, old, None)

    await sent(database)
    async with Messages(database) as tool:
        await gathered(tool.drop(Selection(state="dead")))
    assert (await archive(database, folder)).events == 4
    assert (await archive(database, folder)).events == 0
    assert len(texts(sql, folder)) == 5


async def test_a_repeat_of_an_archived_event_is_a_duplicate_and_versions_have_no_gap(
    database: Database, writer: Writer, folder: Path
) -> None:
    first = event("a", 1, "b")
    receipt = writer.write(first)
    await sent(database)
    await archive(database, folder)
    again = writer.write(first, on_duplicate="return")
    assert again.status == "duplicate"
    assert (again.position, again.entities) == (receipt.position, receipt.entities)
    other = first.to_json().replace(b'"n":1', b'"n":2')
    with pytest.raises(DuplicateEvent) as error:
        writer.write(other, on_duplicate="return")
    assert error.value.same_content is False
    assert [t.version for t in writer.write(event("a", 3, "b")).entities] == [2, 2]


# --- reading what is archived ----------------------------------------------------------------


async def test_a_stream_a_replay_and_a_fill_read_the_file_or_name_it(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    to: str,
) -> None:
    events = [Event.new("Odd", [Entity("Car", "a", {"n": n})], headers=OWN) for n in range(3)]
    ids = [writer.write(each).event_id for each in events]
    first = MemorySink()
    await relay_all(database, first)
    await archive(database, to, reason="old")
    writer.write(event("a", 4))
    (file,) = archives(to)

    with pytest.raises(EventArchived) as error:
        [*writer.stream("Car", "a")]
    assert (error.value.event_id, error.value.file, error.value.place) == (ids[0], file, to)
    found = [*writer.stream("Car", "a", archive=to)]
    assert [each.version for each in found] == [1, 2, 3, 4]
    assert [each.data.encode() for each in found[:3]] == [each.to_json() for each in events]
    async with AsyncWriter(database) as other:
        assert [each async for each in other.stream("Car", "a", after=1, archive=to)] == found[1:]

    async with Messages(database) as tool:
        with pytest.raises(EventArchived, match=file):
            await gathered(tool.replay(Selection(ids=(ids[1],))))
        (done,) = await gathered(tool.replay(Selection(ids=(ids[1],)), archive=[to]))
    assert done.status == "replayed"
    again = MemorySink()
    await relay_all(database, again, refused=[ids[1]])
    assert (await archive(database, to)).events == 1  # the fourth
    async with Messages(database) as tool:
        with pytest.raises(EventArchived, match=file):
            await gathered(tool.retry(Selection(state="dead")))
        assert [each.status for each in await gathered(tool.retry(archive=to))] == ["retried"]
    again = MemorySink()
    await relay_all(database, again)
    assert [m.payload for m in again.messages] == [events[1].to_json()]

    async with Targets(database) as tool:
        with pytest.raises(EventArchived, match=file):
            await tool.add("lake", from_start=True)
        with pytest.raises(JobRefused, match="lake is filling"):
            await archive(database, to)
        target = await tool.add("lake", from_start=True, archive=to)
    assert (target.fill.messages, target.fill.without_bytes) == (4, 0)
    lake = MemorySink()
    await Publisher(database, lake, target="lake").run(until_empty=True)
    assert [m.payload for m in lake.messages[:3]] == [each.to_json() for each in events]
    for one, other in zip(first.messages, lake.messages, strict=False):
        assert own(one.headers) == own(other.headers)
    assert count(sql, "outbox") == 0
    assert [o.verb for o in await operations(database)].count("archive") == 2


def own(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that do not depend on the run."""
    return {k: v for k, v in headers.items() if k not in {"leaseepoch", "traceparent"}}


async def operations(database: Database) -> list[Operation]:
    """What operators did."""
    async with Operations(database) as tool:
        return await gathered(tool.list())


@pytest.mark.parametrize("harm", ["missing", "torn", "another"])
async def test_a_file_that_is_not_as_it_was_written_is_named(
    database: Database, writer: Writer, folder: Path, harm: str
) -> None:
    ids = [writer.write(event(c)).event_id for c in "ab"]
    await sent(database)
    await archive(database, folder)
    (file,) = archives(folder)
    path = folder / file
    if harm == "missing":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] if harm == "torn" else whole[:-1] + b"?")
    with pytest.raises(ArchiveError, match=file) as error:
        [*writer.stream("Car", "a", archive=[str(folder)])]
    assert error.value.place == str(folder)
    async with Messages(database) as tool:
        with pytest.raises(ArchiveError, match=file):
            await gathered(tool.replay(Selection(ids=tuple(ids)), archive=folder.as_posix()))
    with pytest.raises(ArchiveError, match=file):
        await forget(database, folder)


async def test_a_replay_and_an_archive_of_one_event_end_with_its_bytes_in_the_row(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = writer.write(event("a")).event_id
    await sent(database)

    async def replay() -> None:
        async with Messages(database) as tool:
            await gathered(tool.replay(Selection(ids=(one,))))

    Meanwhile(monkeypatch, lambda: from_thread.run(replay))
    assert (await archive(database, folder)).events == 0
    assert files(str(folder)) == [MARKER]
    assert texts(sql).keys() == {one}


# --- what happens between the read and the transaction ---------------------------------------


class Meanwhile:
    """Calls a function when the first files are written, which is before the transaction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], Any]) -> None:
        write, self.left = ArchiveFile.write, [*acts]

        def written(facts: ArchiveFile, *arguments: Any) -> None:
            write(facts, *arguments)
            if self.left:
                self.left.pop(0)()

        monkeypatch.setattr(ArchiveFile, "write", written)


async def test_an_event_that_changed_since_it_was_read_is_read_again(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = (writer.write(event(c)).event_id for c in "ab")
    await sent(database)

    def change() -> None:
        sql.execute(
            "UPDATE outbox.business_events SET event_data = '{\"new\": 1}',"
            " fingerprint = 'new' WHERE id = %s",
            (one,),
        )

    Meanwhile(monkeypatch, change)
    assert (await archive(database, folder)).events == 2
    found = texts(sql, folder)
    assert (found[one], set(found)) == ('{"new": 1}', {one, two})
    assert len(archives(folder)) == 1


async def test_an_event_that_a_row_names_since_it_was_read_is_left_out(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two, three = (writer.write(event(c)).event_id for c in "abc")
    await sent(database)

    def letter(event_id: object) -> Callable[[], object]:
        return lambda: sql.execute(
            """INSERT INTO outbox.dead_letters SELECT id, now(), shard, position, 0, subject_type,
            subject_id, subject_version, topic, '{}', event_size, now(), '', 1, 0
            FROM outbox.business_events WHERE id = %s""",
            (event_id,),
        )

    Meanwhile(monkeypatch, letter(one), letter(two))
    assert (await archive(database, folder)).events == 1
    kept = sql.execute("SELECT id FROM outbox.business_events WHERE archive IS NULL").fetchall()
    assert {event_id for (event_id,) in kept} == {one, two}
    assert texts(sql, folder).keys() == {one, two, three}


async def test_no_archive_takes_an_event_between_the_row_of_a_replay_and_its_commit(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = writer.write(event("a")).event_id
    await sent(database)
    put, archived = StoredEvents.put, anyio.Event()

    async def archive_all() -> None:
        await archive(database, folder)
        archived.set()

    async with anyio.create_task_group() as group:

        async def put_slowly(*arguments: Any) -> None:
            await put(*arguments)
            group.start_soon(archive_all)
            with anyio.move_on_after(1):  # it waits for us, and on DSQL one of us tries again
                await archived.wait()

        monkeypatch.setattr(StoredEvents, "put", put_slowly)
        async with Messages(database) as tool:
            with suppress(EventArchived):
                await gathered(tool.replay(Selection(ids=(one,))))
        await archived.wait()
    both = sql.execute(
        "SELECT FROM outbox.outbox o JOIN outbox.business_events b ON b.id = o.event_id"
        " WHERE b.archive IS NOT NULL"
    )
    assert both.fetchall() == []
    assert texts(sql, folder).keys() == {one}


async def test_an_archive_beside_a_filling_target_is_refused(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer.write(event("a"))
    await sent(database)

    def fill() -> None:
        sql.execute(
            "INSERT INTO outbox.outbox_targets VALUES ('lake', 'sink', 1024, NULL, 'filling')"
        )

    Meanwhile(monkeypatch, fill)
    for _ in range(2):
        with pytest.raises(JobRefused, match="target lake is filling"):
            await archive(database, folder)
        assert count(sql, "outbox_archives") == 0
    sql.execute("DELETE FROM outbox.outbox_targets WHERE name = 'lake'")
    assert (await archive(database, folder)).events == 1
    assert len(archives(folder)) == 1


async def test_two_jobs_exclude_each_other_and_the_slow_one_changes_nothing(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.life.job.LEASE", 1e6)
    writer.write(event("a"))
    await sent(database)
    async with Archives(database) as one, Archives(database) as two:
        slow = one.archive(later(), str(folder))
        quick = two.archive(later(), str(folder))

        async def overtake() -> None:
            sql.execute("UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s'")
            await anext(quick)

        Meanwhile(monkeypatch, lambda: from_thread.run(overtake))
        with pytest.raises(JobRefused, match="another job has begun"):
            async for _ in slow:
                pass
        with pytest.raises(JobRefused, match=r"archive of .* runs; its lease ends in \d+ s"):
            await archive(database, folder)
        await quick.aclose()
    assert count(sql, "outbox_archives") == 1
    assert len(texts(sql, folder)) == 1


async def test_a_job_whose_file_the_next_job_has_removed_does_not_blame_the_file(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took too long for a step: the next one removes what it takes for a killed job's."""
    writer.write(event("c"))
    await sent(database)
    write = ArchiveFile.write

    def write_slowly(facts: ArchiveFile, *arguments: Any) -> None:
        write(facts, *arguments)
        sql.execute("UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s'")
        monkeypatch.setattr(ArchiveFile, "write", write)
        from_thread.run(archive, database, folder)
        raise ArchiveError(facts.file, str(folder), "it is not there")

    monkeypatch.setattr(ArchiveFile, "write", write_slowly)
    with pytest.raises(JobRefused, match="another job has begun"):
        await archive(database, folder)
    assert count(sql, "outbox_archives") == 1
    assert len(texts(sql, folder)) == 1


# --- files and places ----------------------------------------------------------------


async def test_a_full_disk_changes_nothing(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer.write(event("a"))
    await sent(database)
    real = os.fsync

    def full(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(".zst.part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(places.os, "fsync", full)
        with pytest.raises(ArchiveError, match="No space left on device"):
            await archive(database, folder)
    assert files(str(folder)) == [MARKER]
    assert len(texts(sql)) == 1
    assert (await archive(database, folder)).events == 1


async def test_a_file_that_reads_back_differently_changes_nothing(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer.write(event("a"))
    await sent(database)
    read = places.FolderPlace.read

    def torn(place: places.FolderPlace, file: str, most: int) -> bytes:
        return read(place, file, most)[:-1] if file.endswith(".zst") else read(place, file, most)

    with monkeypatch.context() as patch:
        patch.setattr(places.FolderPlace, "read", torn)
        with pytest.raises(ArchiveError, match="not the file that was written"):
            await archive(database, folder)
    assert len(texts(sql)) == 1
    assert (await archive(database, folder)).events == 1


async def test_foreign_files_are_left_alone_and_another_outbox_is_refused(
    database: Database, writer: Writer, sql: psycopg.Connection, folder: Path
) -> None:
    foreign = put(folder / "000000001-abc.jsonl.zst")
    writer.write(event("a"))
    await sent(database)
    assert (await archive(database, folder)).events == 1
    assert foreign.read_bytes() == b"mine"

    sql.execute("UPDATE outbox.outbox_jobs SET store = %s", (uuid4(),))
    writer.write(event("b"))
    await sent(database)
    with pytest.raises(SettingsError, match="is the archive of another outbox"):
        await archive(database, folder)
    (folder / MARKER).unlink()
    with pytest.raises(ArchiveError, match="is it mounted"):
        await archive(database, folder)
    (folder / MARKER).write_text("?")
    with pytest.raises(ArchiveError, match="does not say whose"):
        await archive(database, folder)
    assert len(texts(sql, folder)) == 2


@pytest.mark.parametrize("is_done", [True, False])
async def test_what_a_killed_job_left_is_removed_unless_a_row_names_it(
    database: Database, writer: Writer, sql: psycopg.Connection, folder: Path, *, is_done: bool
) -> None:
    writer.write(event("a"))
    await sent(database)
    await archive(database, folder)
    (file,) = archives(folder)
    left = file if is_done else new_file_name(2)
    (folder / left).write_bytes((folder / file).read_bytes())
    leave(sql, folder, left)
    await archive(database, folder)
    assert archives(folder) == [file]
    assert len(texts(sql, folder)) == 1


def put(path: Path) -> Path:
    """Make a file of somebody else's, and its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    return path


def leave(sql: psycopg.Connection, place: object, file: str) -> None:
    """Let a row say that a killed job left a file."""
    sql.execute(
        "UPDATE outbox.outbox_jobs SET owner = 'dead', expires_at = now() - interval '1 s',"
        " pending_place = %s, pending = %s",
        (str(place), file),
    )


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("victim", "important.txt"),
        ("archive", "../victim/important.txt"),
        ("archive", "ABSOLUTE"),
        ("victim", "000000001-00ff00ff00ff.jsonl.zst"),
    ],
)
async def test_no_row_says_which_files_of_others_a_job_removes(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    place: str,
    file: str,
) -> None:
    writer.write(event("a"))
    await sent(database)
    await archive(database, folder)
    victim = put(folder.parent / "victim" / Path(file).name.replace("ABSOLUTE", "important.txt"))
    beside = put(victim.with_name(f"{victim.name}.part"))
    leave(sql, folder.parent / place, file.replace("ABSOLUTE", str(victim)))
    for job in (archive(database, folder), forget(database, folder)):
        with pytest.raises(ArchiveError, match=r"no file of an archive|name it in the command"):
            await job
    assert (victim.read_bytes(), beside.read_bytes()) == (b"mine", b"mine")
    assert len(texts(sql, folder)) == 1


async def test_what_a_killed_job_left_in_a_folder_that_is_not_there_is_not_forgotten(
    database: Database, writer: Writer, sql: psycopg.Connection, folder: Path
) -> None:
    """It may be mounted again, with what was erased since. An empty folder says that it is gone."""
    writer.write(event("a"))
    await sent(database)
    await archive(database, folder)
    gone, file = folder.parent / "gone", new_file_name(2)
    leave(sql, gone, file)
    with pytest.raises(ArchiveError, match="make an empty folder there"):
        await archive(database, folder)
    assert sql.execute("SELECT pending FROM outbox.outbox_jobs").fetchone() == (file,)
    gone.mkdir()
    sql.execute("UPDATE outbox.outbox_jobs SET expires_at = now() - interval '1 s'")
    assert (await archive(database, folder)).events == 0
    assert sql.execute("SELECT pending FROM outbox.outbox_jobs").fetchone() == (None,)


async def test_no_row_says_which_server_gets_a_signed_request(
    database: Database, writer: Writer, sql: psycopg.Connection, folder: Path
) -> None:
    """Of a job, of an erasure that was given no place, and of its dry run."""
    writer.write(event("a"))
    await sent(database)
    await archive(database, folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        place = (
            f"s3://bucket/x?region=eu-west-1&endpoint=http://127.0.0.1:{server.getsockname()[1]}"
        )
        sql.execute("UPDATE outbox.outbox_archives SET place = %s", (place,))
        async with Erasures(database) as tool:
            for is_dry in (True, False):
                with pytest.raises(ArchiveError, match="must not choose an endpoint"):
                    await gathered(tool.erase("Car/a", reason="t", dry_run=is_dry))
        leave(sql, place, new_file_name(2))
        with pytest.raises(ArchiveError, match="must not choose an endpoint"):
            await archive(database, folder)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("file", ["/etc/hostname", "../victim/a", "/dev/zero", "pipe"])
async def test_no_row_says_which_files_are_read(
    database: Database, writer: Writer, sql: psycopg.Connection, folder: Path, file: str
) -> None:
    event_id = writer.write(event("a")).event_id
    await sent(database)
    await archive(database, folder)
    put(folder.parent / "victim" / "a")
    os.mkfifo(folder / "pipe")
    sql.execute("UPDATE outbox.outbox_archives SET file = %s, file_size = 1 << 40", (file,))
    told = "no file of an archive has such a name"
    with pytest.raises(ArchiveError, match=told):
        [*writer.stream("Car", "a", archive=str(folder))]
    async with Messages(database) as tool:
        with pytest.raises(ArchiveError, match=told):
            await gathered(tool.replay(Selection(ids=(event_id,)), archive=str(folder)))
    with pytest.raises(ArchiveError, match=told):
        await forget(database, folder)
    (finding,) = await findings_in(database, folder)
    assert (finding.fault, finding.key) == ("missing-file", file)
    assert told in finding.text


# --- forget --------------------------------------------------------------------------------


async def test_forgotten_events_are_gone_and_the_others_of_their_files_stay(
    database: Database, writer: Writer, sql: psycopg.Connection, to: str
) -> None:
    events = [event(f"c-{n}", n) for n in range(6)]
    ids = [writer.write(each).event_id for each in events]
    await sent(database)
    async with Messages(database) as tool:
        await gathered(tool.replay(Selection(ids=(ids[0],))))
    await sent(database)
    old = datetime.now(UTC) - timedelta(days=30)
    for event_id in ids[:3]:
        sql.execute(
            "UPDATE outbox.business_events SET saved_date = %s WHERE id = %s", (old, event_id)
        )
    await archive(database, to)
    before = texts(sql, to)
    sql.execute(
        """INSERT INTO outbox.dead_letters SELECT id, now(), shard, position, 0, subject_type,
        subject_id, subject_version, topic, '{}', event_size, now(), '', 1, 0
        FROM outbox.business_events WHERE id = %s""",
        (ids[2],),
    )
    asked = old + timedelta(days=1)
    planned = await forget(database, to, before=asked, dry_run=True)
    assert (planned.events, planned.kept, texts_or_letters(sql, to)) == (2, 1, before)
    done = await forget(database, to, before=asked)
    assert (done.events, done.kept, done.files) == (2, 1, 1)
    assert texts_or_letters(sql, to) == {i: before[i] for i in ids[2:]}
    assert count(sql, "outbox_replays") == 0
    assert count(sql, "event_headers") == 4
    assert len(archives(to)) == 1
    assert writer.write(events[0]).status == "committed"

    sql.execute("DELETE FROM outbox.dead_letters")
    assert (await forget(database, to)).events == 4
    assert files(to) == [MARKER]
    row = sql.execute("SELECT archived, forgotten FROM outbox.outbox_jobs").fetchone()
    assert row == (6, 6)
    async with Targets(database) as targets:
        fill = (await targets.add("lake", from_start=True, archive=to)).fill
        assert [each.fill for each in await targets.list()] == [None, fill]
    assert fill is not None
    assert (fill.messages, fill.without_bytes, fill.forgotten) == (1, 0, 6)


async def test_an_event_that_a_row_names_since_it_was_looked_at_is_not_forgotten(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the look under the lock finds the row of a replay that has committed since."""
    one, _, young = (writer.write(event(c)).event_id for c in "abc")
    await sent(database)
    old = datetime.now(UTC) - timedelta(days=30)
    sql.execute("UPDATE outbox.business_events SET saved_date = %s WHERE id <> %s", (old, young))
    await archive(database, folder)

    async def replay() -> None:
        async with Messages(database) as tool:
            await gathered(tool.replay(Selection(ids=(one,)), archive=[str(folder)]))

    Meanwhile(monkeypatch, lambda: from_thread.run(replay))
    done = await forget(database, folder, before=old + timedelta(days=1))
    assert (done.events, done.kept, done.files) == (1, 1, 1)
    assert texts(sql, folder).keys() == {one, young}


async def test_a_forget_that_fails_keeps_the_numbers_of_replays(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A number that is used again would be a dedupe id that the broker knows."""
    one = writer.write(event("a")).event_id
    await sent(database)
    cut = datetime.now(UTC)
    writer.write(event("b"))

    async def replayed() -> list[int | None]:
        async with Messages(database) as tool:
            which = Selection(ids=(one,))
            found = [each.replay async for each in tool.replay(which, archive=[str(folder)])]
        await sent(database)
        return found

    assert await replayed() == [1]
    await archive(database, folder)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        Meanwhile(patch, full)
        with pytest.raises(OSError, match="No space left"):
            await forget(database, folder, before=cut)
    assert await replayed() == [2]
    assert (await forget(database, folder, before=cut)).events == 1
    assert count(sql, "outbox_replays") == 0


async def test_events_with_many_replays_are_forgotten_in_several_transactions(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.life.forget.MAX_ROWS", 6)
    ids = [writer.write(event(c)).event_id for c in "abcd"]
    await sent(database)
    for number, event_id in [*((n, ids[1]) for n in range(9)), (0, ids[2]), (0, ids[3])]:
        sql.execute(
            "INSERT INTO outbox.outbox_replays VALUES (%s, %s, 1, '', 'me', now())",
            (event_id, number),
        )
    await archive(database, folder)
    write, files_written = ArchiveFile.write, list[int]()

    def written(facts: ArchiveFile, *arguments: Any) -> None:
        files_written.append(facts.events)
        write(facts, *arguments)

    monkeypatch.setattr(ArchiveFile, "write", written)
    done = await forget(database, folder)
    assert (done.events, done.kept, done.files) == (4, 0, 1)
    assert sorted(files_written, reverse=True) == files_written
    assert 1 <= len(files_written) <= 3, "a, the one of nine replays alone, and two at once"
    assert count(sql, "outbox_replays") == count(sql, "business_events") == 0
    assert archives(folder) == []


async def test_a_run_that_forgets_is_stopped_between_two_transactions_of_a_file(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.operations.life.forget.MAX_ROWS", 2)
    for name in "abc":
        writer.write(event(name))
    await sent(database)
    await archive(database, folder)
    async with Retention(database) as tool:
        run = tool.forget(later(), archive=str(folder))
        async for _ in run:
            run.stop()
    assert (run.progress.events, run.progress.files) == (1, 1)
    assert len(texts(sql, folder)) == 2
    assert await findings_in(database, folder) == []
    assert (await forget(database, folder)).events == 2
    assert archives(folder) == []


def texts_or_letters(sql: psycopg.Connection, to: str) -> Any:
    """As `texts`, without the rule that no dead letter may name an archived event."""
    letters = sql.execute("DELETE FROM outbox.dead_letters RETURNING *").fetchall()
    found = texts(sql, to)
    for row in letters:
        marks = ", ".join(["%s"] * len(row))
        values = [str(v).replace("'", '"') if isinstance(v, dict) else v for v in row]
        sql.execute(f"INSERT INTO outbox.dead_letters VALUES ({marks})", values)  # type: ignore[arg-type]
    return found
