"""An upgrade from the previous version: its tables and events in the hands of this one."""

import subprocess
import sys
import tarfile
from io import BytesIO
from os import environ
from pathlib import Path
from typing import Final

import anyio
import pytest
from tests.support.checkout import ROOT
from tests.support.coming_migrations import finish

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema import check
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

FIRST: Final = "ccd5b5c1c493869f76c0e8dd5e258e5afe4a6bfc"
"""What counts as the previous version until a version has a tag: ten migrations."""

WRITE: Final = """
import sys
import dsql_outbox
from dsql_outbox import Database, Entity, Event, Writer
from dsql_outbox.schema import apply

assert dsql_outbox.__file__.startswith(sys.argv[1]), dsql_outbox.__file__
database = Database(sys.argv[2])
apply(database)
with Writer(database) as writer:
    for n in range(20):
        loan = Entity("Loan", f"LOAN-{n % 4}", {"n": str(n)})
        print(writer.write(Event.new("Loan Paid", "LoanPaid", [loan])).event_id)
"""


def git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"needs the history, as by git fetch --unshallow --tags: {done.stderr!r}")
    return done.stdout


def previous_version() -> str:
    tags = git("tag", "--list", "v*", "--merged", "HEAD", "--no-contains", "HEAD",
               "--sort=-v:refname").decode().split()  # fmt: skip
    return tags[0] if tags else FIRST


def write_with(version: str, folder: Path, url: str) -> list[str]:
    """Let the code of that version make its tables and write; the ids of its events."""
    with tarfile.open(fileobj=BytesIO(git("archive", version))) as archive:
        archive.extractall(folder, filter="data")
    command = [sys.executable, "-c", WRITE, str(folder), url]
    # The branches of an old version are not measured.
    kept = {name: value for name, value in environ.items() if "COVERAGE" not in name}
    env = {**kept, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(command, cwd=folder, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.postgres_only("the statements of a former version are not in the inventory")
@pytest.mark.anyio
async def test_events_of_the_previous_version_are_relayed_and_its_entities_go_on(
    database_url: str, tmp_path: Path
) -> None:
    before = write_with(previous_version(), tmp_path, database_url)
    database = Database(database_url)
    finish(database)
    assert check(database) == []

    with Writer(database) as writer:
        loan = Entity("Loan", "LOAN-0", {"n": "20"})
        after = writer.write(Event.new("Loan Paid", "LoanPaid", [loan]))
        assert after.entities[0].version == 6
        assert [event.version for event in writer.stream("Loan", "LOAN-0")] == [1, 2, 3, 4, 5, 6]
    sink = MemorySink()
    with anyio.fail_after(60):
        await Publisher(database, sink).run(until_empty=True)

    ids = [*before, str(after.event_id)]
    assert sorted(map(str, sink.ids)) == sorted(ids)
    of_loan = [str(message.event_id) for message in sink.messages if message.key == "Loan/LOAN-0"]
    assert of_loan == [*before[::4], str(after.event_id)]
