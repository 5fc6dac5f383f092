"""The comparison with peers, made tiny: it measures what is installed and names what is not."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from benchmarks.peers import contestants
from benchmarks.peers.contestants import (
    CONTESTANTS,
    OWN,
    OWN_RELAY,
    OWN_RUNG,
    OWN_SYNC,
    PGBENCH,
    Contestant,
)
from benchmarks.peers.four_inserts import batch_statement
from benchmarks.peers.four_inserts_as_text import batch_parameters
from benchmarks.peers.peer_process import PeerFailedError, started
from benchmarks.sample_event import sample_events
from tests.support.checkout import ROOT

from dsql_outbox import Database, Writer

TABLES = ("business_events", "event_headers", "entities", "outbox")
NOBODY = Contestant("nobody", "no_such_module", 0, "", "", "", own=True)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=590,
    )


@pytest.mark.slow
@pytest.mark.postgres_only("starts a server of its own")
def test_every_contestant_is_measured_or_named_with_the_reason() -> None:
    done = run(
        "--only",
        "batch,single,eight,ordered",
        "--rounds",
        "1",
        "--share",
        "0.02",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    measured = {(row["contestant"], row["line"]) for row in found if "line" in row}
    missing = {row["contestant"] for row in found if row.get("missing")}
    lone = {OWN_RUNG}  # is measured in the lines of two processes only
    assert {name for name, _ in measured} | missing == {each.name for each in CONTESTANTS} - lone
    assert not {name for name, _ in measured} & missing
    assert {(OWN, "batch"), (OWN_SYNC, "batch"), (OWN, "eight"), (PGBENCH, "single")} <= measured
    assert (OWN_RELAY, "ordered") in measured
    assert all(row["disordered"] == 0 for row in found if row.get("line") == "ordered")


def test_a_contestant_that_cannot_be_imported_fails_with_the_reason() -> None:
    with (
        pytest.raises(PeerFailedError, match=r"No module named .*no_such_module"),
        started(NOBODY, "postgresql://"),
    ):
        pass


def test_without_the_peers_environment_its_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestants, "PEERS_PYTHON", tmp_path / "python")
    with (
        pytest.raises(PeerFailedError, match=f"No such file.*: {tmp_path}/python"),
        started(NOBODY._replace(own=False), "postgresql://"),
    ):
        pass


def sizes(url: str) -> dict[str, tuple[int, int]]:
    """The number of rows per table, and their bytes."""
    with psycopg.connect(url) as connection:
        return {
            table: connection.execute(
                f"SELECT count(*), sum(pg_column_size(t.*)) FROM outbox.{table} AS t".encode()
            ).fetchall()[0]
            for table in TABLES
        }


def test_the_floor_stores_as_many_rows_and_bytes_as_the_writer(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(batch_statement().encode(), batch_parameters(sample_events(0, 50)))
        floor = sizes(url)
        for table in TABLES:
            connection.execute(f"TRUNCATE outbox.{table}".encode())
    with Writer(Database(url)) as writer:
        writer.write_many(sample_events(0, 50))
    for table, (count, size) in sizes(url).items():
        assert floor[table][0] == count == 50
        assert floor[table][1] == pytest.approx(size, rel=0.01), table


@pytest.mark.slow
@pytest.mark.postgres_only("starts a server of its own")
def test_a_short_run_beside_long_queries_tells_each_minute_and_loses_nothing() -> None:
    words = ["--only", OWN, "--minute", "2", "--quiet", "1", "--minutes", "2", "--rate", "50"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pressure", *words, "--query-seconds", "2", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    minutes = [json.loads(line) for line in done.stdout.splitlines()]
    phases = [each["phase"] for each in minutes]
    assert phases == ["quiet", "pressed", "pressed", "restarted"], done.stderr
    assert sum(each["written"] for each in minutes) == sum(each["relayed"] for each in minutes) > 0
