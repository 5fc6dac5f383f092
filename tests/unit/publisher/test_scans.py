"""Where a shard is read: everything in the end, and what is new soon."""

from tests.support.publisher.given_rows import row

from dsql_outbox.publisher.relay.memory.scans import Sweep, Tail
from dsql_outbox.publisher.relay.store import HEAD, LAST, RangeRead, RowPlace

CLOCK = 1_000_000_000


def found(position: int, *, rows: int = 0, cut: bool = False) -> RangeRead:
    return RangeRead([row("a", n + 1) for n in range(rows)], RowPlace(position, HEAD.event_id), cut)


def test_a_sweep_goes_on_by_key_and_rests_when_it_has_seen_all() -> None:
    sweep = Sweep()
    assert sweep.is_due(0.0)
    sweep.note_read(found(50, rows=10, cut=True), 10, 0.01)
    assert (sweep.place.position, sweep.is_due(0.01)) == (50, True)
    sweep.note_read(found(90, rows=3), 10, 0.02)
    assert not sweep.is_due(1.01)
    assert sweep.is_due(1.03)
    assert sweep.place == HEAD
    assert not sweep.is_short


def test_a_long_sweep_takes_a_twentieth_of_the_time() -> None:
    sweep = Sweep()
    assert sweep.is_due(0.0)
    sweep.note_read(found(50, cut=True), 10, 1.0)
    sweep.note_read(found(90), 10, 2.0)
    assert not sweep.is_due(41.9)
    assert sweep.is_due(42.1)


def test_the_first_sweep_lasts_from_its_first_read() -> None:
    sweep = Sweep()
    assert sweep.is_due(5_000.0)
    sweep.note_read(found(90), 10, 5_000.0)
    assert sweep.is_due(5_001.0)


def test_an_outage_is_no_part_of_the_duration_of_a_sweep() -> None:
    sweep = Sweep()
    assert sweep.is_due(0.0)
    sweep.note_read(found(50, cut=True), 10, 0.1)
    sweep.note_outage(40.0)
    sweep.note_read(found(90), 10, 40.1)
    assert sweep.is_due(42.2)


def test_a_sweep_rests_a_minute_at_most() -> None:
    sweep = Sweep()
    assert sweep.is_due(0.0)
    sweep.note_read(found(90), 10, 100.0)
    assert not sweep.is_due(159.0)
    assert sweep.is_due(161.0)


def test_a_sweep_can_begin_again_at_once() -> None:
    sweep = Sweep()
    sweep.note_read(found(90), 10, 0.0)
    sweep.restart(0.1)
    assert sweep.is_due(0.1)
    assert sweep.place == HEAD


def test_a_tail_begins_one_second_before_now_by_the_clock_of_the_database() -> None:
    tail = Tail(CLOCK)
    tail.note_read(found(CLOCK + 5), 10, CLOCK + 7, new=True)
    assert not tail.is_behind
    tail.go_home(0.0)
    assert tail.place.position == CLOCK + 7 - 1_000_000


def test_a_tail_reads_what_comes_after_its_end_and_comes_back_soon() -> None:
    tail = Tail(CLOCK)
    tail.note_read(found(CLOCK + 5), 10, CLOCK, new=True)
    tail.go_home(0.0)
    tail.note_read(found(CLOCK + 90, rows=3), 10, CLOCK, new=True)
    tail.go_home(0.01)
    assert tail.place.position == CLOCK + 90
    tail.go_home(0.06)
    assert tail.place == tail.home


def test_a_tail_that_is_far_behind_goes_on_until_it_is_near_now() -> None:
    tail = Tail(CLOCK - 15_000_000)
    tail.note_read(found(CLOCK - 10_000_000, rows=10, cut=True), 10, CLOCK, new=True)
    tail.go_home(9.0)
    assert tail.is_behind
    assert tail.place.position == CLOCK - 10_000_000


def test_a_position_in_the_future_hides_nothing_new() -> None:
    """The tail comes back to one second before now, however many such rows there are."""
    tail, future = Tail(CLOCK), CLOCK + 3_600_000_000
    back: list[bool] = []
    for n in range(40):
        tail.go_home(n * 0.01)
        back.append(tail.place <= tail.home)
        tail.note_read(found(future, cut=True), 10, CLOCK + n * 10_000, new=False)
    assert all(any(back[n : n + 6]) for n in range(34))


def test_a_tail_rests_when_two_passes_found_nothing_new() -> None:
    tail = Tail(CLOCK)
    for n in range(4):
        tail.go_home(n * 0.06)
        tail.note_read(found(CLOCK + 3_600_000_000, cut=True), 10, CLOCK, new=False)
    assert not tail.is_behind


def test_a_scan_that_finds_little_looks_at_more_rows_up_to_a_bound() -> None:
    sweep = Sweep()
    seen: list[int] = []
    for n in range(12):
        seen.append(sweep.visits(100))
        sweep.note_read(found(n, rows=1, cut=True), 100, 0.0)
    assert seen[:4] == [100, 200, 400, 800]
    assert seen[-1] == 1_000
    sweep.note_read(found(99, rows=90, cut=True), 100, 0.0)
    assert sweep.visits(100) == 100


def swept(sweep: Sweep, at: float, *seconds: float) -> list[int]:
    """Go through the stretches of a sweep that begins at a time; returns where each one ended."""
    assert sweep.is_due(at)
    ends = list[int]()
    for took in seconds:
        ends.append(sweep.stretch.until)
        clock = CLOCK + round(at * 1_000_000)
        sweep.note_read(found(1), 10, at, clock=clock, seconds=took)
    assert not sweep.is_running
    return ends


def test_a_sweep_that_passes_over_many_deleted_rows_goes_in_stretches() -> None:
    """Each stretch ends where an earlier sweep was, so none of them gets longer later."""
    sweep, end = Sweep(), LAST.position
    assert swept(sweep, 10.0, 0.004) == [end]
    assert swept(sweep, 20.0, 0.04) == [end]
    assert swept(sweep, 30.0, 0.04, 0.03) == [CLOCK + 19_000_000, end]
    assert swept(sweep, 40.0, 0.04, 0.03, 0.02) == [CLOCK + 19_000_000, CLOCK + 29_000_000, end]


def test_a_stretch_that_has_ended_is_not_read_again_in_the_same_sweep() -> None:
    sweep = Sweep()
    swept(sweep, 10.0, 0.04)
    assert sweep.is_due(20.0)
    sweep.note_read(found(7), 10, 20.0, seconds=0.04)
    assert sweep.place == RowPlace(CLOCK + 9_000_000, LAST.event_id)
    assert sweep.is_running


def test_a_sweep_that_begins_again_begins_with_its_first_stretch() -> None:
    sweep = Sweep()
    swept(sweep, 10.0, 0.04)
    assert sweep.is_due(20.0)
    first = sweep.stretch
    sweep.note_read(found(7), 10, 20.0, seconds=0.04)
    assert sweep.stretch != first
    sweep.restart(20.0)
    assert (sweep.place, sweep.stretch) == (HEAD, first)


def test_a_stretch_without_an_answer_counts_as_long_and_others_as_before() -> None:
    sweep = Sweep()
    swept(sweep, 10.0, 0.04)
    assert sweep.is_due(20.0)
    sweep.note_outage(20.0)
    assert sweep.stretch.seconds == 0.04
    sweep.note_outage(26.0, 6.0)
    assert sweep.stretch.seconds == 6.0


def test_a_clock_that_was_set_back_makes_no_stretch_before_the_others() -> None:
    sweep = Sweep()
    swept(sweep, 10.0, 0.04)
    swept(sweep, 30.0, 0.04, 0.03)
    swept(sweep, 20.0 + 60, 0.04, 0.03, 0.02)
    sweep.restart(200.0)
    ends = list[int]()
    while sweep.is_running:
        ends.append(sweep.stretch.until)
        sweep.note_read(found(1), 10, 200.0, clock=CLOCK, seconds=0.04)
    assert sweep.is_due(300.0)
    again = swept(sweep, 300.0, *(0.04 for _ in ends))
    assert again == ends == sorted(ends)


def test_stretches_become_one_when_the_deleted_rows_are_gone() -> None:
    sweep = Sweep()
    swept(sweep, 10.0, 0.04)
    swept(sweep, 20.0, 0.04, 0.03)
    swept(sweep, 30.0, 0.001, 0.001, 0.001)
    assert not sweep.is_short
    assert swept(sweep, 40.0, 0.001) == [LAST.position]
    assert sweep.is_short


def test_rows_that_are_found_make_no_stretches() -> None:
    """A read of a long backlog takes long for the sake of its rows."""
    sweep = Sweep()
    assert sweep.is_due(0.0)
    sweep.note_read(found(50, rows=10, cut=True), 10, 0.1, clock=CLOCK, seconds=0.3)
    sweep.note_read(found(90), 10, 0.2, clock=CLOCK, seconds=0.001)
    assert sweep.goes_to_the_end


def test_a_sweep_has_a_bounded_number_of_stretches() -> None:
    sweep = Sweep()
    for n in range(1_000):
        assert sweep.is_due(100.0 * n)
        reads = 0
        while sweep.is_running:
            reads += 1
            clock = CLOCK + n * 100_000_000
            sweep.note_read(found(1), 10, 100.0 * n, clock=clock, seconds=1.0)
        assert reads <= 70
