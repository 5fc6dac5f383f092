"""The places of connections, however their holder is interrupted. No server is needed."""

import gc
import sys
import threading
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any

import anyio
import psycopg
import pytest
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Database
from dsql_outbox.outbox.unit_of_work.connections import (
    lender,
    shelf,
    task_connections,
    thread_connections,
)
from dsql_outbox.outbox.unit_of_work.connections.task_connections import AsyncConnections
from dsql_outbox.outbox.unit_of_work.connections.thread_connections import Connections
from dsql_outbox.outbox.unit_of_work.primitives import Program

MODULES = {lender.__file__, shelf.__file__, thread_connections.__file__}


class Unconnected(Database):
    """Its connections are open and lead nowhere."""

    def connect(self, *, role_path: bool = False, **_: Any) -> Any:
        return Opened(role_path=role_path)


class Opened:
    """As a connection."""

    is_inherited = closed = False
    is_clean = True
    deadline: float | None = None
    was_used = False
    kept_at = 0.0
    retires_at = float("inf")

    def __init__(self, *, role_path: bool) -> None:
        self.role_path = role_path

    def drop(self) -> None:
        """Close it."""
        self.closed = True


class Interrupt:
    """Raises `KeyboardInterrupt` at the n-th point from now on where Python runs signal handlers.

    These are the beginning of a function of ours and the return of a built-in one.
    """

    def __init__(self, point: int) -> None:
        self.left = point
        # As in `interrupted_calls`: CPython may call it once more after it was taken away.
        self.profile = self._look

    def _look(self, frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename in MODULES and event in {"call", "c_return"}:
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


def use(connections: Connections) -> None:
    connections.take_back(connections.take(fresh=False, deadline=None))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(shelf, "_silent", lambda _: True)
    return Connections("writer", Unconnected("host=nowhere"), 1, keep_failed=True, max_idle=None)


def test_an_interrupt_at_any_point_keeps_the_place(connections: Connections) -> None:
    for point in range(1_000):
        interrupt = Interrupt(point)
        sys.setprofile(interrupt.profile)
        try:
            use(connections)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        wait_until(connections._shelf.has_room)  # an opening may go on for a moment
        if interrupt.left >= 0:
            break
    assert 15 < point < 1_000


@pytest.mark.parametrize("fails", [True, False])
def test_a_call_that_is_interrupted_as_it_gives_its_connection_back_keeps_the_place(
    connections: Connections, *, fails: bool
) -> None:
    """Also if the connection lives on, as behind the errors of a failed call."""
    held: list[object] = []

    def work(connection: Any, interrupt: Interrupt) -> Program[None]:
        held.append(connection)
        sys.setprofile(interrupt.profile)
        if fails:
            raise psycopg.OperationalError
        yield from ()

    for point in range(1_000):
        interrupt = Interrupt(point)
        try:
            connections.perform(connections.lend(partial(work, interrupt=interrupt)))
        except (psycopg.OperationalError, KeyboardInterrupt) as error:
            held.append(error)
        finally:
            sys.setprofile(None)
        assert connections._shelf.has_room()
        if interrupt.left >= 0:
            break
    assert 5 < point < 1_000


def test_an_opening_that_an_interrupt_prevents_does_not_count(
    connections: Connections, request: pytest.FixtureRequest
) -> None:
    """The exception lives on, and with it what its frames have: it may be part of a cycle."""
    gc.freeze()  # each collection looks at what this test makes alone
    request.addfinalizer(gc.unfreeze)
    for point in range(1_000):
        interrupt = Interrupt(point)
        sys.setprofile(interrupt.profile)
        try:
            use(connections)
        except KeyboardInterrupt as error:
            held = error
            sys.setprofile(None)
            wait_until(lambda: not connections._shelf._openings)
            assert held.__traceback__ is not None
            del held
        finally:
            sys.setprofile(None)
        wait_until(connections._shelf.has_room)
        if interrupt.left >= 0:
            break
        connections.take(fresh=False, deadline=None).drop()  # the next one is opened again
        gc.collect()
    assert 15 < point < 1_000


def test_a_waiter_that_is_interrupted_when_woken_leaves_the_connection_to_the_next(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_connections, "_SLICE", 60.0)
    held = connections.take(fresh=False, deadline=None)
    answer, main = connections._answer, threading.current_thread()
    got: list[object] = []

    def interrupted(*arguments: Any) -> Any:
        if threading.current_thread() is main:
            raise KeyboardInterrupt
        return answer(*arguments)

    def others() -> None:
        wait_until(lambda: len(connections._shelf._waiting) == 1)
        other.start()
        wait_until(lambda: len(connections._shelf._waiting) == 2)
        connections.take_back(held)

    other = threading.Thread(
        target=lambda: got.append(connections.take(fresh=False, deadline=None)), daemon=True
    )
    monkeypatch.setattr(connections, "_answer", interrupted)
    helper = threading.Thread(target=others, daemon=True)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        connections.take(fresh=False, deadline=None)
    helper.join(5)
    other.join(5)
    assert got == [held]


def test_a_connection_that_was_lost_frees_its_place(connections: Connections) -> None:
    """As by an interrupt between `take` and what its caller does next."""
    taken = connections.take(fresh=False, deadline=None)
    with pytest.raises(psycopg.OperationalError, match="all 1 connections"):
        connections.take(fresh=False, deadline=monotonic() + 0.01)
    waiting = threading.Thread(target=use, args=[connections], daemon=True)
    waiting.start()
    del taken
    waiting.join(5)
    assert not waiting.is_alive()


class UnconnectedTasks(Unconnected):
    """The same for tasks."""

    async def connect_async(self, *, role_path: bool = False, **_: Any) -> Any:
        return Opened(role_path=role_path)


@pytest.mark.anyio
async def test_a_task_gets_the_place_of_an_idle_connection_although_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its kind has a connection, which is in use for as long as the test wants."""
    monkeypatch.setattr(shelf, "_silent", lambda _: True)
    for module in (shelf, task_connections):
        monkeypatch.setattr(module, "PAUSE", 0.2)
    database = UnconnectedTasks("host=nowhere")
    connections = AsyncConnections("writer", database, 3, keep_failed=True, max_idle=None)
    used = [await connections.take(fresh=False, deadline=None, role_path=True)]
    for each in [await connections.take(fresh=False, deadline=None) for _ in range(2)]:
        connections.take_back(each)
    with anyio.fail_after(30):
        used += [
            await connections.take(fresh=False, deadline=None, role_path=True) for _ in range(2)
        ]
    assert [each.closed for each in used] == [False] * 3
