"""The adapter for another project's harness, and the driver that stands in for that harness."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from benchmarks.chaos.__main__ import run
from benchmarks.chaos.replicas import Deliveries, deliveries
from benchmarks.chaos.scenarios import CHAOS

pytestmark = pytest.mark.client

REQUIRED = {
    *("claim_p50_ms", "claim_p95_ms", "claim_p99_ms"),
    *("enqueue_rate", "completion_rate", "queue_depth"),
}


def test_the_adapter_speaks_the_protocol_of_the_harness(database_url: str, tmp_path: Path) -> None:
    """Settings from the environment, a descriptor, samples, and the end after SIGTERM."""
    file, rate = tmp_path / "jobs", tmp_path / "rate"
    rate.write_text("40")
    environment = {
        "DATABASE_URL": database_url,
        "PRODUCER_RATE": "1",
        "PRODUCER_RATE_CONTROL_FILE": str(rate),
        "WORKER_COUNT": "3",
        "JOB_WORK_MS": "2",
        "SAMPLE_EVERY_S": "1",
        "DELIVERIES_FILE": str(file),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.chaos.adapter"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: list[dict[str, Any]] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found.append(json.loads(line))
            works = [each for each in found if each.get("metric") == "completion_rate"]
            if any(each["value"] for each in works) and found[-1]["metric"] == "queue_depth":
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    descriptor, *samples = found
    manifest = json.loads((Path(run.__code__.co_filename).parent / "adapter.json").read_bytes())
    assert descriptor["kind"] == "descriptor"
    assert set(descriptor["event_tables"]) >= set(manifest["event_tables"])
    assert {each["metric"] for each in samples} >= REQUIRED
    assert {(each["system"], each["subject"]) for each in samples} == {(manifest["system"], "")}
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT id::text, (SELECT count(*) FROM outbox.outbox) FROM outbox.business_events"
        ).fetchall()
    verdict = deliveries(file, {each for each, _ in rows})
    assert rows
    assert verdict.lost == rows[0][1]  # what is not done waits
    assert verdict.out_of_order == 0


def test_lost_repeated_and_disordered_jobs_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    lines = ["J/a 1 e1", "J/b 1 e2", "J/a 3 e3", "J/a 1 e1", "J/a 2 e4", "J/b 2 e5", "J/a 3 e3"]
    file.write_text("".join(f"{each}\n" for each in lines))
    stored = {f"e{n}" for n in range(1, 9)}
    assert deliveries(file, stored) == Deliveries(lost=3, duplicates=2, out_of_order=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crash_recovery", "postgres_restart"])
def test_a_scenario_loses_no_job_and_keeps_the_order(name: str, tmp_path: Path) -> None:
    """Rates depend on the machine, so they are for `make chaos`."""
    given = Namespace(rate=60.0, seconds=3.0, workers=4, work_ms=1.0)
    found = asyncio.run(run(name, CHAOS[name], given, tmp_path))
    assert found.jobs > 0
    assert (found.verdict.lost, found.verdict.out_of_order) == (0, 0)
    assert found.stop is not None
