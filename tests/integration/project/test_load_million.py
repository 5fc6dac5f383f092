"""The load benchmark, made small: every event counted, memory bounded."""

import re
import subprocess
import sys

import pytest
from tests.support.checkout import ROOT

pytestmark = pytest.mark.slow


def test_20_000_events_in_batches_are_all_stored_and_memory_stays_low() -> None:
    words = [sys.executable, "-m", "benchmarks.writer.load_million", "--events", "20000"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"20,000 events in .* peak RSS (\d+) MiB", done.stdout)
    assert found, done.stdout
    assert 20 < int(found[1]) < 100, "MiB"
    assert "20,000 stored" in done.stderr
