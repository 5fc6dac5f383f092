"""How a run works through its pages: what a transaction gets, and when the next one begins."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.operations import (
    Erasures,
    Messages,
    Retention,
    Selection,
    Targets,
)
from dsql_outbox.operations import run as run_module
from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Step, TooLarge, change_pages, pack
from dsql_outbox.operations.run import RowFence, Run
from dsql_outbox.outbox import Database, SettingsError

MAX_ROWS = 500
DATABASE = Database("postgresql://nowhere/shop")

Item = tuple[int, int, int]
"""Its number, rows and bytes."""

items = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, 30)), max_size=6)


@given(
    st.floats(min_value=0.1, max_value=1e5),
    st.lists(st.tuples(st.integers(0, MAX_ROWS), st.floats(0, 3)), max_size=30),
)
def test_a_pace_is_never_outrun(rate: float, steps: list[tuple[int, float]]) -> None:
    """Whatever each transaction moves and takes, `rate` a second and one transaction is all."""
    pace = Pace(rate)
    now = begun = 1000.0
    moved = 0
    for events, seconds in steps:
        now += pace.wait(now)
        assert moved <= (now - begun) * rate + 1e-3
        now += seconds
        moved += min(events, pace.most(MAX_ROWS))
        pace.spend(min(events, pace.most(MAX_ROWS)), now - seconds, now)


@pytest.mark.parametrize(("rate", "rows"), [(None, MAX_ROWS), (0.1, 1), (7.9, 7), (1e9, MAX_ROWS)])
def test_a_transaction_holds_a_seconds_worth_at_most(rate: float | None, rows: int) -> None:
    assert Pace(rate).most(MAX_ROWS) == rows


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_that_cannot_be_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="rate must be above 0"):
        Pace(rate)


# --- a run that gives way -----------------------------------------------------------------


class Beside:
    """A run that gives way, on a database of others: a transaction takes 0.02 s, times `busy`."""

    def __init__(self) -> None:
        self.pace = Pace(gives_way=True)
        self.now = 1000.0

    def share(self, busy: float) -> float:
        """The share of the time that a transaction has, with the rest after it."""
        began = self.now
        self.now += 0.02 * busy
        self.pace.spend(MAX_ROWS, began, self.now)
        took, self.now = self.now - began, self.now + self.pace.wait(self.now)
        return took / (self.now - began)


@given(st.lists(st.floats(1.0, 18.0), max_size=20))
def test_a_run_that_gives_way_has_a_sixteenth_of_the_time_at_most(busy: Sequence[float]) -> None:
    database = Beside()
    assert all(database.share(each) <= 1 / 16 + 1e-6 for each in busy)


@given(st.floats(1.1, 4.0), st.floats(1.0, 4.0))
def test_a_run_that_gives_way_rests_longer_while_others_slow_it(busy: float, more: float) -> None:
    database = Beside()
    quick = database.share(1.0)
    slow = database.share(busy)
    assert quick == pytest.approx(1 / 16)
    assert slow == pytest.approx(1 / (1 + 15 * min(busy, 4)))
    assert database.share(busy * more) <= slow + 1e-6
    assert database.share(1.0) == pytest.approx(quick)


def test_a_run_that_gives_way_knows_no_better_than_its_fastest_transaction() -> None:
    database = Beside()
    assert database.share(3.0) == pytest.approx(1 / 16)
    assert database.share(1.0) == pytest.approx(1 / 16)
    assert database.share(3.0) == pytest.approx(1 / 46)


def test_a_run_that_gives_way_goes_on_soon_after_it_was_suspended() -> None:
    database = Beside()
    database.share(1.0)
    began = database.now
    database.pace.spend(MAX_ROWS, began, began + 3600)
    assert database.pace.wait(began + 3600) == 60


@pytest.mark.parametrize(("pace", "events"), [(Pace(gives_way=True), 0), (Pace(), MAX_ROWS)])
def test_no_run_rests_that_has_only_read_or_that_does_not_give_way(pace: Pace, events: int) -> None:
    pace.spend(events, 100.0, 103.0)
    assert pace.wait(103.0) == 0.0


def test_a_rate_replaces_the_rests() -> None:
    pace = Pace(1000.0, gives_way=True)
    pace.spend(500, 100.0, 103.0)
    assert pace.wait(103.0) == 0.5


ERASURE = Erasures(DATABASE).erase("Car/a", reason="request 7")
REPLAY = Messages(DATABASE).replay(Selection(), reason="request 7")
RETRY = Messages(DATABASE).retry(reason="request 7")
FILL = Targets(DATABASE).add("lake", from_start=True)


@pytest.mark.parametrize("run", [ERASURE, REPLAY, RETRY, FILL])
def test_a_run_that_somebody_waits_for_does_not_rest(run: Run[Any, Any]) -> None:
    run.pace.spend(1, 100.0, 103.0)
    assert run.pace.wait(103.0) == 0.0


def test_a_run_of_a_schedule_gives_way() -> None:
    run = Retention(DATABASE).forget(datetime.now(UTC))
    run.pace.spend(1, 100.0, 103.0)
    assert run.pace.wait(103.0) == 45.0


class Lease:
    """A fence that notes when it was renewed."""

    lease = 30.0

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.renewed: list[float] = []

    async def renew(self) -> None:
        self.renewed.append(self._now())


@pytest.mark.anyio
async def test_a_run_that_rests_for_longer_than_its_lease_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    run = Retention(DATABASE).forget(datetime.now(UTC))
    run.pace.spend(1, 40.0, now)  # it rests for a minute
    fence = Lease(lambda: now)

    async def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(run_module, "monotonic", lambda: now)
    monkeypatch.setattr(run, "pause", pause)
    assert await run.rest(fence)
    assert fence.renewed == [110.0, 120.0, 130.0, 140.0, 150.0, 160.0]


class Paged(Run[int, Sequence[Item]]):
    """Yields what each transaction got; one has room for 10 rows and 50 bytes, or for `room`."""

    def __init__(
        self,
        pages: Sequence[Sequence[Item]],
        *,
        room: int = 99,
        most: int = 99,
        stop_at: int | None = None,
    ) -> None:
        self._stop_at = stop_at
        self._pages = pages
        self._room = room
        self._most = most
        super().__init__(0)

    async def _work(self) -> AsyncGenerator[Sequence[Item]]:
        some = pack(self, self._read(), lambda each: each[1:], rows=10, bytes_=50)
        async with aclosing(change_pages(self, RowFence(), some, self._change)) as steps:
            async for each in steps:
                yield each

    async def _read(self) -> AsyncGenerator[Sequence[Item]]:
        for page in self._pages:
            self.progress += 1
            if self.progress == self._stop_at:
                self.stop()
            yield page

    async def _change(self, some: Sequence[Item]) -> Step[Sequence[Item]]:
        if len(some) > 1 and sum(rows for _, rows, _ in some) > self._room:
            raise TooLarge
        told = some[: self._most]
        return Step(len(told), sum(number for number, *_ in told), [told])


def yielded(run: Paged, then: Callable[[], None] = lambda: None) -> list[Sequence[Item]]:
    """What a run yields; calls `then` after each transaction."""

    async def read() -> list[Sequence[Item]]:
        got: list[Sequence[Item]] = []
        async for each in run:
            got.append(each)
            then()
        return got

    return anyio.run(read)


def completed(run: Paged) -> int:
    """The progress of a run at its end."""

    async def complete() -> int:
        return await run

    return anyio.run(complete)


def test_a_rate_counts_the_events_that_were_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    run, spent = Paged([[(3, 1, 1), (0, 1, 1)]], most=1), list[int]()
    monkeypatch.setattr(run.pace, "spend", lambda events, *_: spent.append(events))
    assert len(yielded(run)) == 2
    assert spent == [3, 0]


@given(st.lists(items, max_size=5))
def test_a_transaction_gets_as_many_as_fit(pages: Sequence[Sequence[Item]]) -> None:
    got = yielded(Paged(pages))
    assert [item for each in got for item in each] == [item for page in pages for item in page]
    for n, each in enumerate(got):
        assert len(each) == 1 or fits(each)
        assert n + 1 == len(got) or not fits([*each, got[n + 1][0]])


def fits(some: Sequence[Item]) -> bool:
    return sum(item[1] for item in some) <= 10 and sum(item[2] for item in some) <= 50


@given(st.lists(items, max_size=5), st.integers(1, 5), st.integers(1, 3))
def test_each_item_is_changed_once_whatever_turns_out_to_fit(
    pages: Sequence[Sequence[Item]], room: int, most: int
) -> None:
    got = yielded(Paged(pages, room=room, most=most))
    assert [item for each in got for item in each] == [item for page in pages for item in page]


def test_a_run_that_is_stopped_begins_no_other_transaction_and_reads_no_other_page() -> None:
    run = Paged([[(1, 9, 0), (2, 9, 0)], [(3, 9, 0)]])
    assert yielded(run, then=run.stop) == [[(1, 9, 0)]]
    assert run.progress == 1
    assert run.again == {}


def test_pages_without_a_match_are_read_until_the_run_is_stopped() -> None:
    run = Paged([[], [], []], stop_at=2)
    assert completed(run) == 2
    assert run.again == {}


def test_a_run_that_was_stopped_before_it_began_does_nothing() -> None:
    run = Paged([[(1, 9, 0)]])
    run.stop()
    assert completed(run) == 0


def test_a_run_that_is_done_needs_no_other_one() -> None:
    run = Paged([[(1, 9, 0)]])
    assert run.again == {}
    assert completed(run) == 1
    assert run.again is None
