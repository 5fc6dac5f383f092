"""After an outage the writer is back at once, however many callers were refused meanwhile."""

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Self

import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.callers import (
    QUICK,
    TIMEOUT,
    Caller,
    OpenWriter,
    Running,
    in_background,
    outcome_of,
)
from tests.support.writer.checked_tables import Tables

from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.writer import Writer, WriterSettings

pytestmark = pytest.mark.client

CALLERS = 200
BACK = 60.0
"""Seconds after the outage within which the service is back: with 200 threads on a busy machine.

On a quiet one it takes less than three. A writer that cannot get over an outage never comes back.
"""

PATIENT = 10.0
"""Seconds of a call that is stored whatever else the machine does."""


class Load:
    """`CALLERS` threads that call again and again, each with 0.2 to 1 s of patience a call."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._is_over = threading.Event()
        self._stored: list[float] = []
        self._threads: Running[None] | None = None

    def __enter__(self) -> Self:
        self._threads = Running([self._call] * CALLERS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, and wait for the last call."""
        self._is_over.set()
        if self._threads is not None:
            self._threads.results()

    def go_on(self, seconds: float) -> float:
        """Let the calls go on for so long; returns how many a second were stored."""
        before = len(self._stored)
        assert not self._is_over.wait(seconds)
        return (len(self._stored) - before) / seconds

    def stored_after(self, time: float) -> bool:
        """Whether an event was stored since then."""
        return bool(self._stored) and self._stored[-1] > time

    def _call(self) -> None:
        own = threading.get_ident()
        patience = random.Random(own)
        while not self._is_over.is_set():
            event = workload_s.car_created(f"CAR-{own}")
            timeout = patience.uniform(0.2, 1.0)
            outcome = outcome_of(lambda: self._caller.write(event, timeout=timeout))  # noqa: B023
            if isinstance(outcome, Receipt):
                self._stored.append(monotonic())


@contextmanager
def outage(proxy: PostgresProxy) -> Iterator[None]:
    """Nobody listens, and nobody is connected."""
    proxy.pause_listening()
    proxy.cut_all()
    try:
        yield
    finally:
        proxy.resume_listening()


def test_callers_that_were_refused_keep_nobody_waiting_after_the_outage(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    database = Database(proxy.url, opens_per_second=20)
    for _ in range(100):
        database._opens.reserve(monotonic())
    caller = open_writer(database)
    events = [workload_s.car_created() for _ in range(CALLERS)]
    with outage(proxy):
        calls = [lambda e=e: outcome_of(lambda: caller.write(e, timeout=0.3)) for e in events]
        refused = Running(calls).results()
    assert not any(isinstance(outcome, Receipt) for outcome in refused)
    # Had each of them taken an opening away, the next would come after ten seconds.
    receipt = caller.write(workload_s.car_created(), timeout=5.0)
    tables.assert_true_to({receipt.event_id: receipt})


def test_an_interrupted_wait_for_a_connection_takes_none_away(
    proxy: PostgresProxy, tables: Tables
) -> None:
    with Writer(Database(proxy.url), replace(QUICK, max_connections=1)) as writer:
        held = proxy.hold()
        first = in_background(lambda: writer.write(workload_s.car_created("CAR-1")))
        held.arrived()
        for _ in range(3):
            with interrupted_after(0.05), pytest.raises(KeyboardInterrupt):
                writer.write(workload_s.car_created("CAR-2"))
        held.release()
        assert isinstance(first.result(TIMEOUT), Receipt)
        assert writer.write(workload_s.car_created("CAR-3"), timeout=5.0).attempts == 1
    assert len(tables.events()) == 2


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C in a while."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "alone"])
def test_after_an_outage_of_five_seconds_service_is_back(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables, *, loaded: bool
) -> None:
    caller = open_writer(proxy.url, WriterSettings())
    with Load(caller) as load:
        wait_until(lambda: load.stored_after(0.0))
        before = load.go_on(2.0)
        with outage(proxy):
            load.go_on(5.0)
        ended = monotonic()
        if loaded:
            wait_until(lambda: load.go_on(1.0) > before / 4, timeout=BACK)
        else:
            load.stop()
            wait_until(lambda: is_stored(caller), timeout=ended + BACK - monotonic())
            assert all(is_stored(caller, PATIENT) for _ in range(50))
    tables.assert_consistent()


def is_stored(caller: Caller, timeout: float = 0.2) -> bool:
    """Whether one call of little patience succeeds."""
    return isinstance(
        outcome_of(lambda: caller.write(workload_s.car_created(), timeout=timeout)), Receipt
    )
