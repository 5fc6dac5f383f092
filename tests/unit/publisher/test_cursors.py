"""Where reads begin: everything is found, late commits soon, and nothing starves."""

from collections.abc import Iterable
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.publisher.relay.cursors import HEAD, Cursors, RowPlace
from dsql_outbox.publisher.outbox_rows import OutboxRow

LIMIT = 3
SECOND = 1_000_000


def rows(positions: list[int], *, shard: int = 0, seen: int | None = None) -> list[OutboxRow]:
    return [
        OutboxRow(
            shard, p, UUID(int=p), 0, "Car", "a", 1, "t", "{}", "{}", 0,
            len(positions) if seen is None else seen, predecessor=False,
        )
        for p in positions
    ]  # fmt: skip


def made(shards: Iterable[int], *, rows: int, head_interval: float) -> Cursors:
    cursors = Cursors(rows=rows, head_interval=head_interval)
    cursors.add(shards)
    return cursors


def read(cursors: Cursors, found: list[OutboxRow], now: float) -> None:
    starts = cursors.starts(now)
    cursors.advance(starts, dict.fromkeys(starts, LIMIT), found, now)


def test_a_full_read_moves_on_and_one_that_is_not_goes_back_to_the_head() -> None:
    cursors = made([0], rows=LIMIT, head_interval=100)
    read(cursors, rows([1, 2, 3]), now=0)
    assert cursors.starts(1) == {0: RowPlace(3, UUID(int=3))}
    assert cursors.behind
    read(cursors, rows([4]), now=1)
    assert cursors.starts(2) == {0: HEAD}
    assert not cursors.behind


def test_a_read_cut_by_bytes_counts_as_full() -> None:
    cursors = made([0], rows=LIMIT, head_interval=100)
    read(cursors, rows([1], seen=2), now=0)
    assert cursors.starts(1) == {0: RowPlace(1, UUID(int=1))}


def test_the_head_is_read_again_after_its_interval_and_the_deep_cursor_stays() -> None:
    cursors = made([0], rows=LIMIT, head_interval=1)
    read(cursors, rows([1, 2, 3]), now=0)
    read(cursors, rows([4, 5, 6]), now=0.5)
    assert cursors.starts(1.0) == {0: HEAD}
    read(cursors, rows([1, 2, 3]), now=1.0)
    assert cursors.starts(1.1) == {0: RowPlace(6, UUID(int=6))}


def test_slow_rounds_read_the_head_and_the_deep_end_in_turn() -> None:
    """With every round longer than the interval, a held head must not hide the rest."""
    cursors = made([0], rows=LIMIT, head_interval=1)
    seen: list[RowPlace] = []
    for n in range(6):
        start = cursors.starts(n * 10.0)[0]
        seen.append(start)
        first = max(0, start.position) + 1
        read(cursors, rows([first, first + 1, first + 2]), now=n * 10.0)
    assert seen[::2] == [HEAD] * 3
    assert [s.position for s in seen[1::2]] == [3, 6, 9]


def test_shards_that_are_behind_share_a_batch() -> None:
    cursors = made(range(10), rows=500, head_interval=100)
    assert cursors.limit(0) == 50
    read(cursors, [*rows([1, 2, 3], shard=4), *rows([1, 2, 3], shard=7)], now=0)
    assert cursors.limit(4) == 250
    assert cursors.limit(0) == 50


def test_of_a_shard_where_all_waits_little_is_read_until_something_goes() -> None:
    cursors = made([0, 1], rows=1_000, head_interval=100)
    cursors.chosen({0, 1}, {1})
    assert (cursors.limit(0), cursors.limit(1)) == (100, 500)
    cursors.chosen({0}, {0})
    assert cursors.limit(0) == 500


def test_while_a_sweep_is_stuck_every_second_read_is_where_new_rows_come() -> None:
    cursors = made([0], rows=LIMIT, head_interval=1_000)

    def stuck(found: list[OutboxRow], now: float) -> int:
        start = cursors.starts(now)
        cursors.advance(start, {0: LIMIT}, found, now)
        cursors.chosen({0}, set())
        return start[0].position

    assert stuck(rows([1, 2, 3]), 0) == HEAD.position
    tail = cursors.starts(1)[0].position
    assert tail > 1_700_000_000 * SECOND, "seconds since 1970: about now"
    new = tail + 9 * SECOND
    assert stuck(rows([new]), 1) == tail
    assert stuck(rows([4, 5, 6]), 2) == 3
    assert stuck([], 3) == new - SECOND
    assert stuck(rows([7, 8, 9]), 4) == 6


def test_rows_that_stay_unsent_are_read_in_turn_with_what_is_behind_them() -> None:
    cursors = made([0], rows=LIMIT, head_interval=1_000)
    read(cursors, rows([1, 2, 3]), now=0)
    seen: list[int] = []
    for n in range(1, 7):
        cursors.back_to({0: RowPlace(1, HEAD.event_id)})
        start = cursors.starts(n)[0].position
        seen.append(start)
        read(cursors, rows([start + 1, start + 2, start + 3]), now=n)
    assert seen == [1, 4, 1, 7, 1, 10]


def test_what_is_read_again_goes_on_until_it_meets_the_sweep() -> None:
    cursors = made([0], rows=LIMIT, head_interval=1_000)
    for n in range(3):
        read(cursors, rows([3 * n + 1, 3 * n + 2, 3 * n + 3]), now=n)
    cursors.back_to({0: RowPlace(2, HEAD.event_id)})
    assert cursors.again == {0: 2}
    read(cursors, rows([2, 3, 4]), now=3)
    assert cursors.again == {0: 4}
    read(cursors, rows([10, 11, 12]), now=4)
    read(cursors, rows([5, 6, 7]), now=5)
    assert cursors.again == {0: 7}
    read(cursors, [], now=6)
    assert not cursors.sweeping
    assert cursors.behind or cursors.again == {}


def test_a_shard_can_be_sent_back_to_its_head_at_once() -> None:
    cursors = made([0], rows=LIMIT, head_interval=100)
    read(cursors, rows([1, 2, 3]), now=0)
    cursors.back_to({0: HEAD})
    assert cursors.starts(0.1) == {0: HEAD}
    assert cursors.behind


def test_a_shard_that_was_dropped_and_added_again_is_read_from_its_head() -> None:
    cursors = made([0, 1], rows=LIMIT, head_interval=100)
    read(cursors, rows([1, 2, 3]), now=0)
    cursors.drop([0])
    assert not cursors.behind
    assert cursors.starts(1) == {1: HEAD}
    cursors.add([0])
    assert cursors.starts(1) == {0: HEAD, 1: HEAD}


def test_when_all_is_seen_it_reads_on_a_second_before_the_last_row() -> None:
    cursors = made([0], rows=LIMIT, head_interval=100)
    read(cursors, rows([50 * SECOND, 60 * SECOND]), now=0)
    assert cursors.starts(1) == {0: RowPlace(59 * SECOND, HEAD.event_id)}
    assert not cursors.behind
    read(cursors, [], now=1)
    assert cursors.starts(2) == {0: RowPlace(59 * SECOND, HEAD.event_id)}


def test_a_shard_is_sent_back_to_a_place_and_never_forward() -> None:
    cursors = made([0], rows=LIMIT, head_interval=100)
    read(cursors, rows([1, 2, 3]), now=0)
    cursors.back_to({0: RowPlace(9, HEAD.event_id)})
    assert cursors.starts(0.1) == {0: RowPlace(3, UUID(int=3))}
    cursors.back_to({0: RowPlace(2, HEAD.event_id)})
    assert cursors.starts(0.1) == {0: RowPlace(2, HEAD.event_id)}
    assert cursors.behind
    cursors.back_to({0: RowPlace(1, HEAD.event_id)})
    assert cursors.starts(0.1) == {0: RowPlace(1, HEAD.event_id)}


def test_sweeps_take_a_twentieth_of_the_time() -> None:
    """A long stretch of rows that wait is not read over and over."""
    cursors = made([0], rows=LIMIT, head_interval=1)
    began = now = 100.0
    for n in range(4):  # a sweep of two seconds
        first = 100 * SECOND + 3 * n
        starts = cursors.starts(now)
        found = rows([first, first + 1, first + 2] if n < 3 else [first])
        now += 0.5
        cursors.advance(starts, {0: LIMIT}, found, now, took=0.5)
    assert not cursors.behind
    assert cursors.starts(began + 0.5 + 39.9) != {0: HEAD}
    assert cursors.starts(began + 0.5 + 40.1) == {0: HEAD}


def test_a_slow_read_of_the_head_is_done_seldom_but_once_a_minute() -> None:
    """As over many deleted rows that an old snapshot keeps alive."""
    cursors = made([0], rows=LIMIT, head_interval=1)
    cursors.advance(cursors.starts(0), {0: LIMIT}, rows([50 * SECOND]), 0, took=1.0)
    cursors.advance(cursors.starts(1), {0: LIMIT}, [], 1, took=0.001)
    assert cursors.starts(19.9) != {0: HEAD}
    assert cursors.starts(20.1) == {0: HEAD}
    cursors.advance(cursors.starts(20.1), {0: LIMIT}, [], 20.1, took=30.0)
    cursors.advance(cursors.starts(21), {0: LIMIT}, [], 21, took=0.001)
    assert cursors.starts(80) != {0: HEAD}
    assert cursors.starts(80.2) == {0: HEAD}


@given(
    commits=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 8)), max_size=30),
    stuck=st.sets(st.integers(1, 30), max_size=12),
    scale=st.sampled_from([1, SECOND // 2, 100 * SECOND]),
)
def test_every_row_is_read_whatever_the_order_of_commits(
    commits: list[tuple[int, int]], stuck: set[int], scale: int
) -> None:
    """Rows appear at any place and time; all that can be delivered is, in bounded rounds."""
    cursors = made([0], rows=LIMIT, head_interval=1)
    outbox = {p * scale for p in stuck}
    delivered: set[int] = set()
    for round_number in range(200):
        outbox |= {p * scale for p, at in commits if at == round_number} - delivered
        start = cursors.starts(round_number * 0.3)[0]
        found = sorted(p for p in outbox if p > start.position)[:LIMIT]
        read(cursors, rows(found), now=round_number * 0.3)
        sent = {p for p in found if p // scale not in stuck}
        delivered |= sent
        outbox -= sent
    assert delivered == {p * scale for p, _ in commits if p not in stuck}
