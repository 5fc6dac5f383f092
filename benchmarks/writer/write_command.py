"""``dsql-outbox write``, given many events: how long it takes, and its resident memory.

The events are made while they are read, about 400 bytes each, ten per subject.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread
from time import perf_counter
from typing import Self

from benchmarks.sample_event import event

PER_SUBJECT = 10
SAMPLE = 0.1  # seconds between samples


class Memory:
    """The resident memory of a process in MiB, sampled by a thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopped = Event()
        self._thread = Thread(target=self._sample)
        self.samples: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        return max(self.samples)

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE):
            if (now := resident(self._pid)) is not None:
                self.samples.append(now)


def resident(pid: int) -> float | None:
    """The resident memory of a process in MiB. One that ended has none."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = next((line for line in lines if line.startswith("VmRSS:")), None)
    return int(found.split()[1]) / 1024 if found else None


def pieces(number: int) -> Iterator[bytes]:
    """JSON Lines, 1000 events per piece; the events of an entity follow each other."""
    for start in range(0, number, 1000):
        these = range(start, min(start + 1000, number))
        yield b"".join(event(f"CAR-{n // PER_SUBJECT:07}", n) + b"\n" for n in these)


def load(url: str, number: int, *options: str) -> tuple[float, Memory, int, int]:
    """Run the command; return its seconds, memory, exit code and number of receipts."""
    words = ["write", "--database", url, *options]
    with TemporaryFile() as receipts:
        began = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "dsql_outbox", *words], stdin=subprocess.PIPE, stdout=receipts
        )
        with process, Memory(process.pid) as memory:
            assert process.stdin is not None
            # A broken pipe means that the command has ended; its exit code says why.
            with suppress(BrokenPipeError), process.stdin as stdin:
                for piece in pieces(number):
                    stdin.write(piece)
            code = process.wait()
        seconds = perf_counter() - began
        receipts.seek(0)
        return seconds, memory, code, sum(1 for _ in receipts)
