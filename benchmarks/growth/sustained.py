"""The ordered relay under a constant load, by the protocol of namastack-outbox.

10,000 rows per second, ten per key, 100 per transaction, for two minutes, to a handler that
does nothing. A setting holds if the rows arrive at that rate; if the backlog grows by
at most 100 rows per second after the first half; and if at most 20,000 rows wait at the end.
"""

import statistics
from collections.abc import Sequence
from threading import Event, Thread
from time import perf_counter, sleep
from typing import NamedTuple, Self

import psycopg
from benchmarks.relay.rows import Rows, arrive, new_database

from dsql_outbox.testing import EmbeddedPostgres

from .publisher_process import publishers, together

OFFERED = 10_000
"""Rows per second."""

SECONDS = 120.0
PER_KEY = 10
TRANSACTION = 100

MOST_GROWTH = 100.0
"""Rows per second that the backlog of a setting that holds may grow."""

MOST_WAITING = 20_000
"""Rows that may wait at the end of a setting that holds."""

_KEPT = 0.99
"""The part of the offered rate that the producer must reach."""


class Setting(NamedTuple):
    """A number of publishers, in processes of their own, and the rows that each reads at once."""

    publishers: int
    batch_rows: int


SETTINGS = (Setting(2, 500), Setting(1, 500), Setting(4, 500), Setting(2, 100))


class Sustained(NamedTuple):
    """The result of a run; rates are rows per second, times seconds."""

    publishers: int
    batch_rows: int
    seconds: float
    arrived: float
    growth: float
    waiting: int
    delivered: int
    disordered: int
    p50: float
    p99: float

    @property
    def holds(self) -> bool:
        """Whether the relay kept up with the producer, and the producer with its rate."""
        return (
            self.arrived >= _KEPT * OFFERED
            and self.growth <= MOST_GROWTH
            and self.waiting <= MOST_WAITING
        )


def sustained(server: EmbeddedPostgres, setting: Setting, seconds: float) -> Sustained:
    """Run a setting once."""
    url = new_database(server, "sustained")
    with publishers(url, *setting) as found, _Backlog(url) as backlog:
        arrived = _produce(url, seconds)
        backlog.stop()
        waiting = backlog.sizes[-1][1]
    return Sustained(
        **setting._asdict(),
        seconds=seconds,
        arrived=arrived,
        growth=slope(backlog.sizes),
        waiting=waiting,
        **together(found)._asdict(),
    )


def slope(sizes: Sequence[tuple[float, int]]) -> float:
    """Rows per second that a backlog grew in the second half, by least squares."""
    late = [each for each in sizes if each[0] >= sizes[-1][0] / 2]
    if len(late) < 2:
        return 0.0
    times, rows = zip(*late, strict=True)
    return statistics.linear_regression(times, rows).slope


def _produce(url: str, seconds: float) -> float:
    """Insert rows at the offered rate; returns the rate that was reached."""
    count = 0
    with psycopg.connect(url, autocommit=True) as connection:
        began = perf_counter()
        while (now := perf_counter() - began) < seconds:
            rows = Rows(TRANSACTION, per_key=PER_KEY, together=True, name=f"CAR-{count}-")
            arrive(connection, rows)
            count += TRANSACTION
            sleep(max(0.0, count / OFFERED - now))
        return count / (perf_counter() - began)


class _Backlog:
    """Counts the waiting rows each second, in a thread, until `stop`; a context manager."""

    def __init__(self, url: str) -> None:
        self.sizes: list[tuple[float, int]] = []
        self._url = url
        self._ended = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Count once more and end."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        began = perf_counter()
        with psycopg.connect(self._url, autocommit=True) as connection:
            while True:
                last = self._ended.wait(1.0)
                ((rows,),) = connection.execute("SELECT count(*) FROM outbox.outbox").fetchall()
                self.sizes.append((perf_counter() - began, rows))
                if last:
                    return
