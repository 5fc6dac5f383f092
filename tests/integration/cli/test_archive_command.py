"""The command `archive`: its report, its exit codes, and what it refuses."""

import json
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


@pytest.fixture
def url(outbox_url: str) -> str:
    """A database with three events that were delivered."""
    with Writer(Database(outbox_url)) as writer:
        writer.write_many([Event.new("Sold", [Entity("Car", f"{n}")]) for n in range(3)])
    with psycopg.connect(outbox_url, autocommit=True) as sql:
        sql.execute("DELETE FROM outbox.outbox")
    return outbox_url


def test_events_are_archived_and_reported(url: str, tmp_path: Path) -> None:
    words = ("archive", "--before", "0s", "--to", tmp_path, "--reason", "monthly")
    planned = run(url, *words, "--dry-run")
    assert planned.stdout.startswith("3 events of 1 KiB would be archived in 1 file, read 3")
    done = run(url, *words, "--json", "--rate", 100)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["events"], told["files"], told["read"]) == (3, 1, 3)
    assert "archive" in run(url, "operations").stdout
    status = run(url, "status").stdout
    assert "3 archived, complete" in status
    assert json.loads(run(url, "status", "--json").stdout)["archive"]["archived"] == 3


def test_another_job_is_named_with_the_exit_code_to_try_again(url: str, tmp_path: Path) -> None:
    assert run(url, "archive", "--before", "1d", "--to", tmp_path).exit_code == 0
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(
            "UPDATE outbox.outbox_jobs SET owner = 'host:7', expires_at = now() + interval '1 h'"
        )
    done = run(url, "archive", "--before", "1d", "--to", tmp_path)
    assert done.exit_code == 75
    assert "the job archive of host:7 runs" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--before 1d", "Missing option '--to'"),
        ("--before soon --to /a", "soon"),
        ("--before 1d --to ftp://a", "an archive is FOLDER or s3://BUCKET/PREFIX"),
        ("--before 1d --to s3:/a", "an archive is FOLDER or s3://BUCKET/PREFIX"),
        ("--before yesterday --to a", "Invalid value for '--before': 'yesterday' is no time"),
        ("--before 1d --to s3://a", "an archive in S3 is s3://BUCKET/PREFIX"),
    ],
)
def test_what_cannot_be_is_refused(url: str, words: str, text: str) -> None:
    done = run(url, "archive", *words.split())
    assert done.exit_code == 2, done.output
    assert text in done.stderr


def test_a_file_in_the_place_of_the_folder_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(url, "archive", "--before", "0s", "--to", tmp_path / "file")
    assert done.exit_code == 1
    assert f"Error: {tmp_path / 'file'}: it is no folder" in done.stderr


@pytest.mark.postgres_only("DSQL analyzes by itself")
def test_an_estimate_that_was_too_low_is_not_shown(url: str, tmp_path: Path) -> None:
    words = ("archive", "--before", "0s", "--to", tmp_path, "--dry-run")
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("ANALYZE outbox.business_events")
    assert run(url, *words).stdout.endswith("read 3 of about 3 events\n")
    with Writer(Database(url)) as writer:
        writer.write(Event.new("Sold", [Entity("Car", "4")]))
    assert run(url, *words).stdout.endswith("read 4 events\n")
