"""Permits for connections, however their holder is interrupted. No server is needed."""

import sys
import threading
from time import monotonic
from types import FrameType
from typing import Any

import psycopg
import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.writer.connections import lender, shelf, thread_connections
from dsql_outbox.writer.connections.thread_connections import Connections

MODULES = {lender.__file__, shelf.__file__, thread_connections.__file__}


class Unconnected(Database):
    """Its connections are open and lead nowhere."""

    def connect(self, *, timeout: float | None = None, role_path: bool = False) -> Any:
        assert timeout is None or timeout > 0
        return Opened(role_path=role_path)


class Opened:
    """As a connection."""

    is_inherited = closed = False
    has_our_encoding = True
    deadline: float | None = None
    permit: object = None
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

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename in MODULES and event in {"call", "c_return"}:
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


def use(connections: Connections) -> None:
    connections.give_back(connections.take(fresh=False, deadline=None))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(shelf, "_silent", lambda _: True)
    return Connections(Unconnected("host=nowhere"), 1, keep_failed=True, max_idle=None)


def test_an_interrupt_at_any_point_keeps_the_permit(connections: Connections) -> None:
    for point in range(1_000):
        interrupt = Interrupt(point)
        sys.setprofile(interrupt.profile)
        try:
            use(connections)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        assert connections._shelf.has_room(), f"an interrupt at point {point} lost the permit"
        if interrupt.left >= 0:
            break
    assert 15 < point < 1_000


def test_a_waiter_that_is_interrupted_when_woken_leaves_the_permit_to_the_next(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_connections, "_SLICE", 60.0)
    held = connections.take(fresh=False, deadline=None)
    entered, main = connections._entered, threading.current_thread()
    waits = threading.Event()
    got: list[object] = []

    def take() -> None:
        got.append(connections.take(fresh=False, deadline=None))

    other = threading.Thread(target=take, daemon=True)

    def interrupted(permit: Any) -> bool:
        """Interrupt the main thread at its second look, and start the other after its first."""
        if threading.current_thread() is not main:
            found = entered(permit)
            waits.set()
            return found
        if other.ident is not None:
            raise KeyboardInterrupt
        assert not entered(permit)
        other.start()
        assert waits.wait(5)
        connections.give_back(held)
        return False

    monkeypatch.setattr(connections, "_entered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connections.take(fresh=False, deadline=None)
    other.join(5)
    assert got


def test_a_connection_that_was_lost_returns_its_permit(connections: Connections) -> None:
    """As by an interrupt between `take` and what its caller does next."""
    taken = connections.take(fresh=False, deadline=None)
    with pytest.raises(psycopg.OperationalError, match="all 1 connections"):
        connections.take(fresh=False, deadline=monotonic() + 0.01)
    waiting = threading.Thread(target=use, args=[connections], daemon=True)
    waiting.start()
    del taken
    waiting.join(5)
    assert not waiting.is_alive()
