"""The comparison with peers is fair, and its run beside long queries loses nothing."""

import json
import subprocess
import sys

import psycopg
import pytest
from benchmarks.peers.contestants import CONTESTANTS, OWN, Contestant
from benchmarks.peers.field import Field
from benchmarks.peers.four_inserts import batch_statement
from benchmarks.peers.four_inserts_as_text import batch_parameters
from benchmarks.peers.peer_process import Measured, PeerFailedError
from benchmarks.peers.peer_table import Failure
from benchmarks.sample_event import sample_events
from tests.support.checkout import ROOT

from dsql_outbox import Database, Writer

TABLES = ("business_events", "event_headers", "entities", "outbox")


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


class Relay:
    """A contestant whose relay is not done in time in some round."""

    lines = ("relay",)

    def __init__(self, rounds: int) -> None:
        self._left = rounds

    def measure(self, line: str, events: int) -> Measured:  # noqa: ARG002 - one line only
        if not self._left:
            raise PeerFailedError("TimeoutError")
        self._left -= 1
        return Measured(events)


def test_a_peer_that_fails_in_a_round_leaves_the_others_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relays = {CONTESTANTS[0].name: 9, CONTESTANTS[1].name: 1}

    def started(_: Field, each: Contestant) -> Relay:
        return Relay(relays[each.name])

    monkeypatch.setattr(Field, "_started", started)
    field = Field(server=None, contestants=CONTESTANTS[:2])  # type: ignore[arg-type]
    field.start()
    whole, torn = field.entries("relay")
    assert field.rounds({torn: 10, whole: 10}, 3) == {whole: [Measured(10)] * 3}
    assert field.failed == {torn: "TimeoutError"}
    assert str(Failure(*torn, "TimeoutError")).endswith("failed: TimeoutError")
    field.start()
    assert field.entries("relay") == [whole, torn], "it is not there for the next line"


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
