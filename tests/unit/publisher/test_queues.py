"""Which rows are admitted and sent: order per subject, whatever was committed late."""

from collections.abc import Iterable, Mapping
from random import Random

import pytest
from tests.support.publisher.given_rows import chain, row

from dsql_outbox.publisher.relay.memory import shares
from dsql_outbox.publisher.relay.memory.queues import Queues, passed_over
from dsql_outbox.publisher.relay.memory.rows import Rows
from dsql_outbox.publisher.relay.memory.subjects import MAX_WAITING, Hold, Shard, Subject
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.store import RangeRead, RowPlace
from dsql_outbox.schema.outbox_rows import OutboxRow

NOW = 1_000.0
NO_TOPICS = TopicPauses()


def shard(*, sweeping: bool = False) -> Shard:
    made = Shard(0, 1)
    made.sweep.is_running = sweeping
    return made


def admit(
    queues: Queues,
    to: Shard,
    rows: Iterable[OutboxRow],
    *,
    looked: int | None = None,
    topics: TopicPauses = NO_TOPICS,
) -> int:
    return queues.admit(to, rows, NOW, topics, looked)


def take(queues: Queues, most: int) -> list[Subject]:
    return queues.take(most, free=10_000, of=100_000, may_send=lambda _: True)


def sent(queues: Queues) -> list[int]:
    """Send all that can be sent, each delivered at once; the positions in that order."""
    positions: list[int] = []
    while taken := take(queues, 100):
        positions += [queues.finish(subject, "acknowledged").position for subject in taken]
    return positions


def test_rows_of_a_subject_go_one_at_a_time_and_in_order() -> None:
    queues, one = Queues(Rows()), shard()
    assert admit(queues, one, chain("a", [1, 2, 3])) == 3
    (subject,) = take(queues, 100)
    assert take(queues, 100) == []
    assert queues.finish(subject, "acknowledged").position == 1
    assert sent(queues) == [2, 3]


def test_subjects_take_turns() -> None:
    queues, one = Queues(Rows()), shard()
    admit(queues, one, [*chain("a", [1, 2, 3]), *chain("b", [4, 5]), row("c", 6)])
    assert sent(queues) == [1, 4, 6, 2, 5, 3]


def test_a_known_row_is_no_news_and_sent_once() -> None:
    queues, one = Queues(Rows()), shard()
    admit(queues, one, [row("a", 1)])
    assert admit(queues, one, [row("a", 1)]) == 0
    assert sent(queues) == [1]
    assert admit(queues, one, [row("a", 1)]) == 0  # acknowledged, not deleted
    assert sent(queues) == []


def test_a_row_waits_for_a_predecessor_that_nobody_has_read() -> None:
    queues, one = Queues(Rows()), shard()
    rows = chain("a", [4, 9])
    admit(queues, one, rows[1:])
    assert sent(queues) == []
    place = one.ask_again()
    assert place is not None
    assert place.position == 4
    admit(queues, one, rows, looked=4)
    assert sent(queues) == [4, 9]


@pytest.mark.parametrize(
    ("subject", "headers"), [("b", "{}"), ("a", '{"replay":"1"}')], ids=["subject", "replay"]
)
def test_no_other_row_at_the_position_of_the_predecessor_stands_for_it(
    subject: str, headers: str
) -> None:
    """Two subjects may share a position, and so may a replay and a later event of its subject."""
    queues, one = Queues(Rows()), shard()
    rows = chain("a", [4, 9])
    admit(queues, one, [row(subject, 4, headers=headers), *rows[1:]])
    assert sent(queues) == [4]
    place = one.ask_again()
    assert place is not None
    assert place.position == 4


def test_a_predecessor_that_the_sweep_will_meet_is_not_looked_for() -> None:
    queues, one = Queues(Rows()), shard(sweeping=True)
    admit(queues, one, chain("a", [4, 9])[1:])
    assert one.ask_again() is None
    assert not one.subjects


def test_a_predecessor_that_was_looked_for_in_vain_is_not_looked_for_again() -> None:
    """It belongs to a topic that is paused: reading again and again would find it no more."""
    queues, one = Queues(Rows()), shard()
    admit(queues, one, chain("a", [4, 9])[1:], looked=4)
    assert one.ask_again() is None


def test_a_row_whose_predecessor_is_gone_from_the_snapshot_goes() -> None:
    queues, one = Queues(Rows()), shard()
    admit(queues, one, [row("a", 9, previous=4, waits=False)])
    assert sent(queues) == [9]


def test_a_settled_row_is_known_until_a_read_that_began_later_has_ended() -> None:
    rows, one = Rows(), shard()
    queues = Queues(rows)
    first, second, third = chain("a", [1, 2, 3])
    rows.begin_read()
    admit(queues, one, [first])
    rows.end_read()
    rows.begin_read()  # its snapshot shows row 1
    assert sent(queues) == [1]
    rows.move(first, "settled")
    assert admit(queues, one, [row("a", 1), second]) == 1
    rows.end_read()
    assert sent(queues) == [2]
    rows.begin_read()
    rows.end_read()
    assert admit(queues, one, [row("a", 1)]) == 1  # nothing is remembered for ever
    assert admit(queues, one, [third]) == 1


def test_a_hot_subject_leaves_room_and_its_rest_is_read_again() -> None:
    memory, one = Rows(), shard()
    queues = Queues(memory)
    rows = chain("hot", list(range(1, MAX_WAITING + 11)))
    admit(queues, one, [*rows, row("b", 999)])
    assert memory.shares.rows == MAX_WAITING + 1
    closed = passed_over([one], ()).subjects
    assert list(closed.values()) == [MAX_WAITING + 1]
    assert sent(queues)[-1] == MAX_WAITING
    place = one.ask_again()
    assert place is not None
    assert place.position == MAX_WAITING + 1
    assert not passed_over([one], ()).subjects


@pytest.mark.parametrize("passed", [1, 3])
@pytest.mark.parametrize("way", ["drop", "make room"])
def test_rows_that_are_dropped_are_read_again_if_rows_before_them_were_passed_over(
    way: str, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that was cut may pass over places whose rows another range of it brings."""
    monkeypatch.setattr(shares, "MAX_ROWS", 2)
    memory, one = Rows(), shard()
    queues, rows = Queues(memory), chain("a", [*range(3, MAX_WAITING + 3)])
    admit(queues, one, rows)
    one.subjects[rows[0].key].pass_over(passed)
    assert [*passed_over([one], ()).subjects.values()] == [passed]
    if way == "drop":
        (subject,) = take(queues, 1)
        queues.drop(subject)
    else:
        memory.shares.review(NOW)
        queues.make_room([one])
    assert memory.shares.rows == 0
    assert not passed_over([one], ()).subjects
    place = one.ask_again()
    assert place is not None
    assert place.position == passed


def test_what_is_held_is_passed_over_from_the_failed_row_on() -> None:
    memory, one = Rows(), shard()
    queues = Queues(memory)
    rows = chain("a", [1, 2, 3])
    admit(queues, one, rows)
    (subject,) = take(queues, 1)
    subject.holds = [Hold(rows[0].id, 1, NOW + 5)]
    queues.drop(subject)
    assert memory.shares.rows == 0
    assert passed_over([one], ()).subjects == {subject.name: 1}
    assert admit(queues, one, rows) == 0
    assert sent(queues) == []
    subject.holds[0].retry_at = NOW
    admit(queues, one, rows)
    assert sent(queues) == [1]


def test_rows_of_a_paused_topic_are_left_out_and_no_news() -> None:
    queues, one, topics = Queues(Rows()), shard(), TopicPauses()
    topics.by_operator = {"sick": "repair"}
    assert admit(queues, one, [row("a", 1, topic="sick"), row("b", 2)], topics=topics) == 1
    assert sent(queues) == [2]


def test_a_lost_shard_forgets_what_waits_and_knows_what_is_acknowledged() -> None:
    queues, one = Queues(Rows()), shard()
    admit(queues, one, [row("a", 1), row("b", 2), row("c", 3)])
    first, second = take(queues, 2)
    queues.forget_shard(one)
    assert queues.finish(first, "acknowledged").position == 1
    queues.requeue_later(second, NOW)
    again = shard()
    assert admit(queues, again, [row("a", 1), row("b", 2), row("c", 3)]) == 2
    assert sent(queues) == [2, 3]


def test_a_message_that_was_not_attempted_rests_and_holds_up_nobody_else() -> None:
    queues, one = Queues(Rows()), shard()
    admit(queues, one, [row("a", 1), row("b", 2)])
    (first,) = take(queues, 1)
    queues.requeue_later(first, NOW + 0.1)
    assert queues.end_rests(NOW) == pytest.approx(0.1)
    assert sent(queues) == [2]
    assert queues.end_rests(NOW + 0.2) == float("inf")
    assert sent(queues) == [1]


def test_a_position_with_more_rows_than_one_read_takes_is_left_behind() -> None:
    """Else the same rows would be read again and again."""
    queues, one = Queues(Rows()), shard()
    admit(queues, one, chain("a", [4, 9])[1:])
    for _ in range(2):
        place = one.ask_again()
        assert place is not None
        found = RangeRead([], RowPlace(4, "ff"), is_cut=True)
        one.finish_again(one.begin_again(found.end), found)
    place = one.ask_again()
    assert place is not None
    assert place.position > 4


@pytest.mark.parametrize("seed", range(50))
def test_any_order_of_commits_reads_and_answers_keeps_the_order_and_loses_nothing(
    seed: int,
) -> None:
    random = Random(seed)
    memory, one = Rows(), shard()
    queues = Queues(memory)
    table: dict[int, OutboxRow] = {}
    waiting = {s: chain(s, list(range(1 + n, 40, 3))) for n, s in enumerate("abc")}
    order: list[OutboxRow] = []
    while any(waiting.values()) or table:
        step = random.choice(["commit", "read", "send"])
        if step == "commit" and (late := random.choice(list(waiting.values()))):
            committed = late.pop(0)
            table[committed.position] = committed
        elif step == "read":
            place = one.ask_again()
            one.begin_again(None)
            first = random.choice([0, random.randint(0, 40)])
            first = first if place is None else min(first, place.position)
            memory.begin_read()
            admit(queues, one, [r for r in snapshot(table) if r.position >= first])
            memory.end_read()
        else:
            for subject in take(queues, random.randint(1, 3)):
                done = queues.finish(subject, "acknowledged")
                order.append(done)
                del table[done.position]
                memory.move(done, "settled")
    for name in "abc":
        mine = [r.position for r in order if r.subject_id == name]
        assert mine == sorted(mine)
    assert len(order) == 39


def snapshot(table: Mapping[int, OutboxRow]) -> list[OutboxRow]:
    """The rows in order, as a read finds them."""
    return [
        row(
            each.subject_id,
            each.position,
            previous=each.previous_position,
            waits=each.previous_position in table,
        )
        for _, each in sorted(table.items())
    ]
