"""Which rows may go: order per subject, whatever failed or was committed late."""

import math
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.publisher.outbox_rows import OutboxRow
from dsql_outbox.publisher.relay.selection import Hold, select

NOW = 1_000.0


def row(
    subject: str, position: int, *, shard: int = 0, previous: int = 0, predecessor: bool = False
) -> OutboxRow:
    return OutboxRow(
        shard=shard,
        position=position,
        event_id=UUID(int=position),
        previous_position=previous,
        subject_type="Car",
        subject_id=subject,
        subject_version=1,
        topic="t",
        headers="{}",
        payload="{}",
        created_us=0,
        seen=1,
        predecessor=predecessor,
    )


def chain(subject: str, positions: list[int]) -> list[OutboxRow]:
    """The rows of one subject, each pointing at the one before, all still there."""
    return [
        row(subject, p, previous=before, predecessor=before > 0)
        for before, p in zip([0, *positions], positions, strict=False)
    ]


def test_rows_of_one_subject_go_together_when_their_predecessors_do() -> None:
    rows = chain("a", [1, 2, 3])
    assert select(rows, {}, {}, NOW).rows == rows


def test_a_row_whose_predecessor_was_not_read_waits_and_the_shard_is_read_from_its_head() -> None:
    late = row("a", 9, shard=3, previous=4, predecessor=True)
    selection = select([late, row("a", 10, shard=3, previous=9, predecessor=True)], {}, {}, NOW)
    assert selection.rows == []
    assert selection.rewind == {3}
    assert selection.held == 2


def test_a_row_whose_predecessor_will_be_read_again_waits_and_sends_nobody_back() -> None:
    late = row("a", 9, shard=3, previous=4, predecessor=True)
    selection = select([late], {}, {}, NOW, again={3: 4})
    assert (selection.rows, selection.rewind, selection.held) == ([], set(), 1)


def test_a_row_whose_predecessor_is_gone_goes() -> None:
    rows = [row("a", 9, previous=4, predecessor=False)]
    assert select(rows, {}, {}, NOW).rows == rows


def test_a_row_whose_predecessor_is_acknowledged_but_not_deleted_goes() -> None:
    first, second = chain("a", [1, 2])
    selection = select([first, second], {}, {first.id: first.key}, NOW)
    assert selection.rows == [second]
    assert selection.rewind == set()


def test_a_failed_row_holds_its_subject_and_no_other() -> None:
    rows = [*chain("a", [1, 3, 5]), row("b", 6)]
    holds = {rows[0].key: Hold(rows[0].id, 1, NOW + 1)}
    selection = select(rows, holds, {}, NOW)
    assert [r.subject_id for r in selection.rows] == ["b"]
    assert selection.held == 3
    assert selection.rewind == set(), "a held stretch must not pull the cursor back"


def test_a_failed_row_goes_again_when_its_time_has_come() -> None:
    rows = chain("a", [1, 2])
    holds = {rows[0].key: Hold(rows[0].id, 1, NOW)}
    assert select(rows, holds, {}, NOW).rows == rows


def test_a_blocked_row_never_goes() -> None:
    rows = chain("a", [1, 2])
    holds = {rows[0].key: Hold(rows[0].id, 10, math.inf)}
    assert select(rows, holds, {}, NOW).rows == []


def test_a_row_before_the_failed_one_may_go() -> None:
    """It was committed late; the failed one and all after it still wait."""
    rows = chain("a", [1, 2, 3])
    holds = {rows[1].key: Hold(rows[1].id, 1, NOW + 1)}
    assert select(rows, holds, {}, NOW).rows == rows[:1]


@given(
    lengths=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 6), min_size=1),
    data=st.data(),
)
def test_what_goes_is_a_run_without_gaps_of_each_subject(
    lengths: dict[str, int], data: st.DataObject
) -> None:
    """Any rows may be missing from the read; nothing may go past a row that is still there."""
    there: dict[str, list[OutboxRow]] = {
        s: chain(s, [10 * n + ord(s) - 96 for n in range(1, k + 1)]) for s, k in lengths.items()
    }
    everything = sorted((r for rows in there.values() for r in rows), key=lambda r: r.position)
    unread = data.draw(st.sets(st.sampled_from(everything)))
    read = [r for r in everything if r not in unread]
    holds = {
        r.key: Hold(r.id, 1, data.draw(st.sampled_from([NOW - 1, NOW + 1])))
        for r in data.draw(st.lists(st.sampled_from(everything)))
    }
    sent = select(read, holds, {}, NOW).rows
    for rows in there.values():
        mine = [r for r in sent if r.key == rows[0].key]
        assert mine == rows[: len(mine)]
        hold = holds.get(rows[0].key)
        if hold is not None and hold.retry_at > NOW:
            assert all(r.position < hold.id.position for r in mine)
