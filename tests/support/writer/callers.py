"""Both writers behind one face, many calls at once, and what they told."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar
from uuid import UUID

import msgspec
import pytest
from anyio.from_thread import BlockingPortal

from dsql_outbox.observability.facts import Fact, RetryScheduled, WriteEnded
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.outbox import Database, Receipt
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings
from dsql_outbox.writer.tuned_settings import TunedSettings

A = TypeVar("A")
F = TypeVar("F", bound=Fact)
T = TypeVar("T")

OnDuplicate = Literal["error", "return"]

TIMEOUT = 20.0
"""Seconds that a call in a thread may take."""

FORM = os.environ.get("DSQL_OUTBOX_TEST_FORM", "auto")
"""The form of the writes of every writer of our own fixtures; `make test-plain` sets it."""


def only_single(reason: str) -> pytest.MarkDecorator:
    """Leave a test out where writes have the plain form; `reason` says what differs."""
    return pytest.mark.skipif(FORM == "plain", reason=reason)


QUICK = replace(TunedSettings.origin(), base=0.002, cap=0.05)
"""The budgets of the origin, fifty times as fast."""


def formed(settings: WriterSettings) -> TunedSettings:
    """The settings, with the form of this run of the tests if they leave it open."""
    tuned = TunedSettings.of(settings)
    return replace(tuned, form=FORM) if tuned.form == "auto" else tuned  # type: ignore[arg-type]


class Caller(Protocol):
    """What `Writer` offers, and what `AsyncCaller` makes of an `AsyncWriter`."""

    def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        timeout: float | None = None,
    ) -> Receipt:
        """Store one event."""
        ...

    def close(self) -> None:
        """Close the connections that nobody uses."""
        ...


class OpenWriter(Protocol):
    """Makes a writer that is closed at the end of the test."""

    def __call__(
        self,
        database: Database | str,
        settings: WriterSettings = QUICK,
        hooks: Iterable[Hook] = (),
    ) -> Caller:
        """A writer on a database, or on the URL of one."""
        ...


class AsyncCaller:
    """An `AsyncWriter` in the event loop of `portal`, called from threads."""

    def __init__(self, portal: BlockingPortal, writer: AsyncWriter) -> None:
        self._portal = portal
        self._writer = writer

    def write(
        self,
        event: EventSource,
        *,
        on_duplicate: OnDuplicate = "error",
        timeout: float | None = None,
    ) -> Receipt:
        """Store one event."""
        write = partial(self._writer.write, on_duplicate=on_duplicate, timeout=timeout)
        return self._portal.call(write, event)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._portal.call(self._writer.close)


def make_caller(
    portal: BlockingPortal,
    kind: str,
    database: Database | str,
    settings: WriterSettings = QUICK,
    hooks: Iterable[Hook] = (),
) -> Caller:
    """A writer of one of the two kinds, ``threads`` or ``asyncio``."""
    if isinstance(database, str):
        database = Database(database)
    settings = formed(settings)
    if kind == "threads":
        return Writer(database, settings, hooks=hooks)
    return AsyncCaller(portal, AsyncWriter(database, settings, hooks=hooks))


def without_duration(fact: F) -> F:
    """The fact, and no duration at the end of a call, which no test can know."""
    if isinstance(fact, WriteEnded):
        return msgspec.structs.replace(fact, duration_s=0.0)
    return fact


class Facts:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[Fact] = []

    def __call__(self, fact: Fact) -> None:
        """Take a fact."""
        self.all.append(fact)

    def of(self, kind: type[F], event_id: UUID | None = None) -> list[F]:
        """The facts of one kind, in order."""
        found = [fact for fact in self.all if isinstance(fact, kind)]
        found = list(map(without_duration, found))
        return [f for f in found if event_id is None or f.event_id == event_id]  # type: ignore[union-attr]

    def waits(self, event_id: UUID | None = None) -> list[float]:
        """The waits that were begun, in seconds."""
        return [fact.wait_s for fact in self.of(RetryScheduled, event_id)]


def on_retry(action: Callable[[RetryScheduled], object]) -> Hook:
    """A hook that acts when an attempt has failed and the wait for the next one begins."""

    def hook(fact: Fact) -> None:
        if isinstance(fact, RetryScheduled):
            action(fact)

    return hook


def outcome_of(call: Callable[[], T]) -> T | Exception:
    """What a call ends in."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error


class Running(Generic[T]):
    """Calls in threads of their own, which a test that fails need not wait for."""

    def __init__(self, calls: Iterable[Callable[[], T]]) -> None:
        self._futures = [_started(call) for call in calls]

    def results(self) -> list[T]:
        """What the calls returned, in order; raises what one of them raised."""
        return [future.result(TIMEOUT) for future in self._futures]


def _started(call: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it belongs to who waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def in_background(call: Callable[[], Receipt]) -> "Future[Receipt | Exception]":
    """Run one call in a thread; the future is what it ends in."""
    return _started(partial(outcome_of, call))


def with_workers(workers: int, call: Callable[[A], T], items: Sequence[A]) -> list[T]:
    """Call for each item, so many at once; the results in the items' order."""
    todo = deque(enumerate(items))
    results: dict[int, T] = {}

    def work() -> None:
        while True:
            try:
                n, item = todo.popleft()
            except IndexError:
                return
            results[n] = call(item)

    Running([work] * workers).results()
    return [results[n] for n in range(len(items))]
