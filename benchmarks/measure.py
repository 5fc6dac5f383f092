"""The common part of the benchmarks: medians, and what the machine is like."""

import os
import statistics
from collections.abc import Sequence
from tempfile import TemporaryFile
from time import perf_counter

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


def _flush() -> float:
    """The milliseconds that a small write takes to reach the disk, on average."""
    with TemporaryFile() as file:
        began = perf_counter()
        for _ in range(_FLUSHES):
            file.write(bytes(8192))
            file.flush()
            os.fdatasync(file.fileno())
        return (perf_counter() - began) / _FLUSHES * 1000
