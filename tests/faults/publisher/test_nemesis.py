"""The nemesis, made small: publishers and servers are killed for real, and all is delivered."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.checkout import ROOT
from tests.support.waiting import wait_until

# `make test` kills a publisher in test_takeover.py, and servers in test_restart.py.
pytestmark = pytest.mark.slow

PROC = Path("/proc")
SMALL = ["--publishers", "1", "--lease", "0.5", "--seed", "1"]


def nemesis(*words: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.nemesis", *SMALL, *words]


def descendants(pid: int) -> set[int]:
    """All processes that a process has started, and those that they have."""
    found = {int(path.parent.name) for path in PROC.glob("[0-9]*/stat") if _parent(path) == pid}
    return found.union(*(descendants(child) for child in found))


def _parent(stat: Path) -> int | None:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return None


def is_publisher(pid: int) -> bool:
    try:
        return b"\0publish\0" in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("way", [[], ["--rolling"]], ids=["harmed", "rolling restart"])
def test_every_event_arrives_once_or_more_and_in_order_whatever_is_killed(way: list[str]) -> None:
    words = ["--events", "600", "--rate", "240", "--every", "1", "--down", "2", "--json"]
    done = subprocess.run(
        nemesis(*words, *way), cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["committed"] == 600
    assert found["writes"] == {"committed": 600}
    assert found["delivered"] == 600 + found["duplicates"]
    assert sum(found["harms"].values()) >= (1 if way else 3)
    assert set(found["outages"]) == (set() if way else {"database", "broker"})


def test_publishers_that_do_not_start_are_told_of_at_once() -> None:
    words = nemesis("--publish-options=--nonsense")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "a publisher ended with code 2" in done.stderr
    assert "No such option '--nonsense'" in done.stderr


def test_no_process_outlives_a_nemesis_that_is_interrupted() -> None:
    with subprocess.Popen(
        nemesis("--every", "600"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert "events written" in running.stderr.readline()
        # One publisher for each of the three targets.
        wait_until(lambda: sum(map(is_publisher, descendants(running.pid))) == 3, 60)
        started = descendants(running.pid)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 130
        assert "stopped; seed 1" in running.stderr.read()
    wait_until(lambda: not any((PROC / str(pid)).exists() for pid in started))
