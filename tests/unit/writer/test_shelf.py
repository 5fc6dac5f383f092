"""Which call gets which connection, in random schedules of calls, openings and failures."""

from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

import psycopg
import pytest

from dsql_outbox.outbox.unit_of_work.connections import shelf
from dsql_outbox.outbox.unit_of_work.connections.shelf import Opening, Shelf, Waiter


class Opened:
    """As a connection, with what the shelf looks at."""

    is_inherited = closed = was_used = False
    is_clean = True
    deadline: float | None = None
    kept_at = 0.0
    retires_at = float("inf")

    def __init__(self, *, role_path: bool) -> None:
        self.role_path = role_path

    def drop(self) -> None:
        """Close it."""
        self.closed = True


def is_open(connection: Opened) -> bool:
    return not connection.closed


def waiting(
    *, fresh: bool = False, role_path: bool = False, deadline: float | None = None
) -> Waiter[Any]:
    return Waiter(lambda: None, fresh=fresh, role_path=role_path, deadline=deadline)


def served(kept: Shelf[Any]) -> list[Opening]:
    """Answer the calls. Return the openings to start."""
    begun: list[Opening] = []
    kept.serve(begun)
    return begun


class Model:
    """A writer with its calls, driven by a random number generator."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.limit = random.choice([1, 2, 3, 7])
        self.shelf: Shelf[Any] = Shelf(self.limit, keep_failed=random.random() < 0.5, max_idle=None)
        self.waiting: list[Waiter[Any]] = []
        self.used: list[tuple[Waiter[Any], Any]] = []
        self.openings: list[Opening] = []
        self.all: list[Any] = []
        self.told = 0

    def serve(self) -> None:
        """Start the openings, and take what the calls got."""
        self.shelf.serve(self.openings)
        for waiter in list(self.waiting):
            if waiter.is_answered:
                self.waiting.remove(waiter)
                self.told += waiter.error is not None
                if (connection := waiter.connection) is not None:
                    assert not connection.closed
                    assert connection.role_path == waiter.role_path
                    assert not (waiter._fresh and connection.was_used)
                    assert all(connection is not other for _, other in self.used)
                    self.used.append((waiter, connection))
        self.assert_sound()

    def assert_sound(self) -> None:
        """Not too many are open, and no call waits for nothing."""
        alive = [connection for connection in self.all if not connection.closed]
        assert len(alive) + len(self.openings) <= self.limit
        covered = [opening.role_path for opening in self.openings]
        has_room = len(self.used) + len(self.openings) < self.limit
        kinds = {each.role_path for _, each in self.used} | set(covered)
        for waiter in self.shelf._waiting:  # in their order, as openings cover them
            if waiter.role_path in covered:
                covered.remove(waiter.role_path)
            elif has_room:  # what takes it is wanted, and the call can have one that is in use
                assert self.shelf.holds_back
                assert waiter.role_path in kinds
                assert waiter.needs_no_new or waiter.is_late

    def ask(self) -> None:
        role_path, fresh = self.random.random() < 0.3, self.random.random() < 0.3
        deadline = self.random.choice([None, 0.0, float("inf")])
        waiter = waiting(fresh=fresh, role_path=role_path, deadline=deadline)
        self.waiting.append(waiter)
        self.shelf.ask(waiter)

    def leave(self) -> None:
        """A deadline or a cancellation, also at the moment of the answer."""
        if self.waiting:
            late = self.random.choice(self.waiting)
            if self.random.random() < 0.3:
                self.shelf.serve(self.openings)
            self.waiting.remove(late)
            if late.error is None:
                self.shelf.leave(late)

    def open(self) -> None:
        if self.openings:
            opening = self._any(self.openings)
            if self.random.random() < 0.2:
                self.shelf.fail_opening(opening, psycopg.OperationalError())
            elif self.random.random() < 0.1:
                self.shelf.fail_opening(opening, None)
            else:
                self.all.append(Opened(role_path=opening.role_path))
                self.shelf.finish_opening(opening, self.all[-1])

    def end(self) -> None:
        """A call ends well, badly, or loses its connection."""
        if self.used:
            _, connection = self._any(self.used)
            what = self.random.random()
            if what < 0.5:
                self.shelf.keep(connection)
            elif what < 0.9:
                self.shelf.keep_or_drop(connection, psycopg.OperationalError())
            else:
                self.all.remove(connection)
            del connection

    def die(self) -> None:
        """A connection dies while it is kept."""
        kept = [c for c in self.all if all(c is not used for _, used in self.used)]
        if kept and self.random.random() < 0.2:
            self.random.choice(kept).closed = True

    def _any(self, items: list[Any]) -> Any:
        return items.pop(self.random.randrange(len(items)))


def run(model: Model, steps: Sequence[str]) -> None:
    for step in steps:
        getattr(model, step)()
        model.serve()


@pytest.mark.parametrize("block", range(10))
def test_whatever_happens_no_place_is_lost_and_no_call_is_forgotten(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "_silent", is_open)
    for seed in range(50 * block, 50 * block + 50):
        random = Random(seed)
        pause = random.choice([0.0, 60.0])
        monkeypatch.setattr(shelf, "PAUSE", pause)
        model = Model(random)
        run(model, random.choices(["ask", "leave", "open", "end", "die"], [5, 2, 3, 4, 1], k=80))
        for _ in range(1_000):  # from now on all goes on, and all calls are answered
            if not (model.waiting or model.used or model.openings):
                break
            run(model, ["open", "end"])
        assert not model.waiting, f"seed {seed}"
        run(model, ["ask"] * model.limit)
        assert pause or len(model.used) + len(model.openings) == model.limit


def test_a_call_does_not_overtake_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "_silent", is_open)
    kept: Shelf[Any] = Shelf(1, keep_failed=False, max_idle=None)
    calls = [waiting() for _ in range(3)]
    kept.ask(calls[0])
    for opening in served(kept):
        kept.finish_opening(opening, Opened(role_path=False))
    kept.ask(calls[1])
    kept.keep(calls[0].connection)
    kept.ask(calls[2])
    served(kept)
    assert [each.is_answered for each in calls] == [True, True, False]


@pytest.mark.parametrize("pause", [60.0, 0.0])
def test_calls_of_two_kinds_rarely_close_each_others_connections(
    monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    """More calls of both kinds wait than connections exist, and each kind has one."""
    monkeypatch.setattr(shelf, "_silent", is_open)
    monkeypatch.setattr(shelf, "PAUSE", pause)
    kept: Shelf[Any] = Shelf(3, keep_failed=False, max_idle=None)
    calls = [waiting(role_path=n % 5 < 2) for n in range(30)]
    for waiter in calls:
        kept.ask(waiter)
    openings, used = 0, list[Any]()
    for _ in range(40):
        for opening in served(kept):
            openings += 1
            kept.finish_opening(opening, Opened(role_path=opening.role_path))
        used += [each.connection for each in calls if each.is_answered]
        calls = [each for each in calls if not each.is_answered]
        if used:
            kept.keep(used.pop(0))
    assert not calls
    assert openings <= 6 if pause else openings > 6, openings


class Clock:
    """Time that passes from one event to the next."""

    def __init__(self) -> None:
        self.now = 100.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Have something done so many seconds from now."""
        heappush(self._events, (self.now + seconds, next(self._number), act))

    def run(self, seconds: float) -> None:
        """Let so many seconds pass."""
        ends = self.now + seconds
        while self._events and self._events[0][0] < ends:
            self.now, _, act = heappop(self._events)
            act()
        self.now = ends


class Callers:
    """Callers that each make one call after the other, for a shelf of ten connections."""

    def __init__(self, clock: Clock, kind: Callable[[int], bool], random: Random) -> None:
        self.openings = 0
        self.longest_wait = 0.0
        self._clock, self._kind, self._random = clock, kind, random
        self._shelf: Shelf[Any] = Shelf(10, keep_failed=False, max_idle=None)

    def call(self, caller: int) -> None:
        asked_at = self._clock.now

        def begin() -> None:
            self.longest_wait = max(self.longest_wait, self._clock.now - asked_at)
            self._clock.at(self._random.uniform(0.002, 0.02), end)

        def end() -> None:
            self._shelf.keep(waiter.connection)
            self._serve()
            self.call(caller)

        waiter: Waiter[Any] = Waiter(
            begin, fresh=False, role_path=self._kind(caller), deadline=None
        )
        self._shelf.ask(waiter)
        self._serve()

    def _serve(self) -> None:
        for opening in served(self._shelf):
            self.openings += 1
            self._clock.at(0.02, partial(self._open, opening))

    def _open(self, opening: Opening) -> None:
        self._shelf.finish_opening(opening, Opened(role_path=opening.role_path))
        self._serve()


@pytest.mark.parametrize("callers", [7, 10, 12, 24])
@pytest.mark.parametrize("kinds", ["own", "any", "later"])
def test_callers_of_two_kinds_open_a_connection_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch, callers: int, kinds: str
) -> None:
    """Each has a kind of its own, or calls now and then with each, or all change theirs once."""
    clock, random = Clock(), Random(callers)
    monkeypatch.setattr(shelf, "_silent", is_open)
    monkeypatch.setattr(shelf, "monotonic", lambda: clock.now)
    monkeypatch.setattr(shelf, "time", lambda: clock.now)

    def kind(caller: int) -> bool:
        if kinds == "later":
            return clock.now > 102
        return caller % 2 == 0 if kinds == "own" else random.random() < 0.5

    all_callers = Callers(clock, kind, random)
    for caller in range(callers):
        clock.at(0.001 * caller, partial(all_callers.call, caller))
    clock.run(4.0)
    assert all_callers.openings <= 10 + (10 if kinds == "later" else 4)
    assert all_callers.longest_wait < 1.0


def test_a_call_that_has_little_time_left_is_served_after_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would take its connection with it, and so would the next one: nobody would be served."""
    monkeypatch.setattr(shelf, "_silent", is_open)
    calls: list[Waiter[Any]] = []
    kept: Shelf[Any] = Shelf(1, keep_failed=False, max_idle=None)
    for now in range(10):
        monkeypatch.setattr(shelf, "monotonic", lambda now=now: float(now))
        calls.append(waiting(deadline=now + 10.0))
        kept.ask(calls[-1])
    (opening,) = served(kept)
    connection = Opened(role_path=False)
    kept.finish_opening(opening, connection)
    order = [n for n, each in enumerate(calls) if each.connection]
    while len(order) < len(calls):
        kept.keep(connection)
        served(kept)
        order += [n for n, each in enumerate(calls) if each.connection and n not in order]
    assert order == [4, 5, 6, 7, 8, 9, 3, 2, 1, 0]


class Late(Waiter[Any]):
    """A call whose time is nearly over, which counts how often that is asked."""

    asked = 0

    @property
    def is_late(self) -> bool:
        Late.asked += 1
        return super().is_late


def test_an_answer_costs_the_same_however_many_calls_are_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf, "_silent", is_open)
    monkeypatch.setattr(Late, "asked", 0)
    kept: Shelf[Any] = Shelf(1, keep_failed=False, max_idle=None)
    for _ in range(1_000):
        kept.ask(Late(lambda: None, fresh=False, role_path=False, deadline=0.0))
    (opening,) = served(kept)
    connection = Opened(role_path=False)
    kept.finish_opening(opening, connection)
    for _ in range(100):
        kept.keep(connection)
        served(kept)
    assert Late.asked <= 1_000
