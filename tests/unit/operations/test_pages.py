"""How a run works through its pages: what a transaction gets, and when the next one begins."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.pages import Step, TooLarge, change_pages, pack
from dsql_outbox.operations.run import RowFence, Run
from dsql_outbox.outbox import SettingsError

MAX_ROWS = 500

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


def test_without_a_rate_it_rests_for_a_part_of_the_time_of_a_transaction() -> None:
    pace = Pace(rest=0.5)
    assert pace.wait(100.0) == 0.0
    pace.spend(7, 100.0, 103.0)
    assert pace.wait(103.0) == 1.5
    assert pace.wait(105.0) == 0.0


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
        return Step(len(told), len(told), [told])


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
