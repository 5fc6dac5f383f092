"""``make load-million``: store a million events with ``dsql-outbox write``, in constant memory.

The events are made while they are read, about 400 bytes each, ten per subject.
The command's resident memory is sampled every 0.1 s. Exits with 1 when it exceeds
the limit or grows, or when the tables lack an event.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread
from time import perf_counter
from typing import Self

import psycopg
from benchmarks.measure import embedded
from benchmarks.sample_event import event

PER_SUBJECT = 10
LIMIT = 120.0  # MiB
GROWTH = 0.10  # share by which memory may grow from the second quarter of the run to the last
SAMPLE = 0.1  # seconds between samples


class Memory:
    """The resident memory of a process in MiB, sampled by a thread."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
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

    @property
    def growth(self) -> float:
        """The share by which the peak of the last quarter exceeds that of the second quarter."""
        quarter = max(1, len(self.samples) // 4)
        return max(self.samples[-quarter:]) / max(self.samples[quarter : 2 * quarter]) - 1

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE):
            if (now := self._now()) is not None:
                self.samples.append(now)

    def _now(self) -> float | None:
        lines = self._status.read_text().splitlines()
        found = next((line for line in lines if line.startswith("VmRSS:")), None)
        return int(found.split()[1]) / 1024 if found else None  # a process that ended has none


def pieces(number: int) -> Iterator[bytes]:
    """JSON Lines, 1000 events per piece; the events of an entity follow each other."""
    for start in range(0, number, 1000):
        these = range(start, min(start + 1000, number))
        yield b"".join(event(f"CAR-{n // PER_SUBJECT:07}", n) + b"\n" for n in these)


def load(url: str, number: int, batch: int) -> tuple[float, Memory, int, int]:
    """Run the command; return its seconds, memory, exit code and number of receipts."""
    words = ["write", "--database", url, "--batch", str(batch)]
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


def stored(url: str) -> dict[str, int]:
    """The number of rows per table."""
    tables = ("business_events", "event_headers", "outbox", "entities")
    with psycopg.connect(url) as connection:
        return {t: _count(connection, t) for t in tables}


def _count(connection: psycopg.Connection, table: str) -> int:
    rows = connection.execute(f"SELECT count(*) FROM outbox.{table}".encode()).fetchall()
    return int(rows[0][0])


def problems(
    number: int, memory: Memory, code: int, receipts: int, rows: dict[str, int]
) -> list[str]:
    """Every expectation that the run did not meet."""
    expected = dict.fromkeys(rows, number) | {"entities": -(-number // PER_SUBJECT)}
    wrong = {t: n for t, n in rows.items() if n != expected[t]}
    found = [
        (code != 0, f"the command ended with {code}"),
        (receipts != number, f"{receipts:,} receipts for {number:,} events"),
        (bool(wrong), f"rows are {wrong}"),
        (memory.peak > LIMIT, f"peak RSS {memory.peak:.0f} MiB is over {LIMIT:.0f} MiB"),
        (memory.growth > GROWTH, f"memory grew by {memory.growth:.0%} over the run"),
    ]
    return [text for failed, text in found if failed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=500)
    words = parser.parse_args()
    with embedded() as url:
        seconds, memory, code, receipts = load(url, words.events, words.batch)
        rows = stored(url)
    wrong = problems(words.events, memory, code, receipts, rows)
    print(
        f"{words.events:,} events in {seconds:.1f} s: {words.events / seconds:,.0f} events/s, "
        f"peak RSS {memory.peak:.0f} MiB, growth over the run {memory.growth:+.0%}"
    )
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
