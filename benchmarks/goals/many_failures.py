"""A publisher that takes over very many failing subjects: its memory, and its first sweep."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep

import psycopg
from benchmarks.relay.rows import Rows, fill, new_database
from benchmarks.writer.write_command import Memory

from .conditions import Conditions

_HOUR = 3_600.0
_POLL = 0.1
_PATIENCE = 600.0

_FAILED = """
INSERT INTO outbox.outbox_failures (event_id, position, shard, attempts, last_error, retry_at)
SELECT event_id, position, shard, 10, 'no', clock_timestamp() + interval '1 day' FROM outbox.outbox
"""


def many_failures(conditions: Conditions) -> list[float]:
    """Peak memory in MiB, and seconds until the row behind all failed ones is delivered.

    All rows are old, so only a sweep finds that row.
    """
    url = new_database(conditions.server, "many_failures")
    fill(url, Rows(conditions.sizes.failing, name="BAD-", ahead=-_HOUR))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FAILED)
        connection.execute("VACUUM ANALYZE outbox.outbox_failures")
    fill(url, Rows(1, ahead=-_HOUR / 2))
    with TemporaryDirectory(prefix="goals-failures-") as folder:
        out = Path(folder) / "out.jsonl"
        words = ["publish", "--database", url, "--sink", f"jsonl:{out}", "--listen", "127.0.0.1:0"]
        command = [sys.executable, "-m", "dsql_outbox", *words]
        began = perf_counter()
        with (
            subprocess.Popen(command, stderr=subprocess.DEVNULL) as process,
            Memory(process.pid) as memory,
        ):
            try:
                while not (out.exists() and out.stat().st_size):
                    if perf_counter() - began > _PATIENCE:
                        raise RuntimeError("the row behind the failed ones was not delivered")
                    sleep(_POLL)
            finally:
                process.terminate()
        return [memory.peak, perf_counter() - began]
