"""The common part of the benchmarks: medians, and what the machine is like."""

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter

import psycopg

_FLUSHES = 50


def spread(values: Sequence[float]) -> str:
    """The median, and half the range of the rounds in percent of it."""
    middle = statistics.median(values)
    return f"{middle:10,.1f}  +-{50 * (max(values) - min(values)) / middle:3.0f} %"


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of values that were measured next to each other."""
    return statistics.median(ours / theirs for ours, theirs in zip(ours, theirs, strict=True))


def machine() -> str:
    """The properties of this machine, now, on which the numbers depend most."""
    return (
        f"{len(os.sched_getaffinity(0))} cores, shared by client and server; fsync on, "
        f"{_flush():.2g} ms each; load {load():.1f}"
    )


def load() -> float:
    """The load average of the last minute: processes that run or wait for a core."""
    return os.getloadavg()[0]


def cpu_of(*pids: int) -> float:
    """The seconds of CPU that processes have taken."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in stats) / os.sysconf("SC_CLK_TCK")


def cpu_of_sessions(url: str, role: str = "postgres") -> float:
    """The seconds of CPU that the open sessions of a role in a database have taken."""
    with psycopg.connect(url) as connection:
        pids = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = %s"
            " AND backend_type = 'client backend'",
            (role,),
        ).fetchall()
    return cpu_of(*(pid for (pid,) in pids))


def _flush() -> float:
    """The milliseconds that a small write takes to reach the disk, on average."""
    with TemporaryFile() as file:
        began = perf_counter()
        for _ in range(_FLUSHES):
            file.write(bytes(8192))
            file.flush()
            os.fdatasync(file.fileno())
        return (perf_counter() - began) / _FLUSHES * 1000
