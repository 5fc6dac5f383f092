"""Topics that take no messages: paused, tried with one message at a time, resumed."""

import pytest
from tests.support.publisher.given_rows import row

from dsql_outbox.publisher.relay.memory.topics import MAX_TRIED, TopicPauses
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.schema.refused_topics import RefusedTopic

SICK, OTHER = row("a", 1, topic="sick"), row("b", 2, topic="sick")


def paused() -> TopicPauses:
    topics = TopicPauses()
    topics.pause(SICK, 0.0)
    return topics


def test_a_refused_topic_is_passed_over_until_it_may_be_tried() -> None:
    topics = paused()
    assert topics.names() == (["sick"], 0)
    assert topics.passed_over(0.0) == {"sick"}
    assert topics.passed_over(5.1) == set()


def test_it_is_tried_with_the_row_that_was_refused_and_with_no_other() -> None:
    topics = paused()
    assert topics.probes(5.1) == [SICK.id]
    assert topics.takes(SICK, 5.1)
    assert not topics.takes(OTHER, 5.1)
    assert not topics.takes(SICK, 1.0)


def test_no_second_row_is_tried_while_one_is_on_its_way() -> None:
    topics = paused()
    topics.note_sent(SICK)
    assert topics.probes(5.1) == []
    assert topics.passed_over(5.1) == {"sick"}


def test_a_topic_that_no_map_works_for_is_tried_after_the_same_rest() -> None:
    topics = TopicPauses()
    topics.pause_unmapped(SICK, 0.0)
    assert topics.next_trial(4.9) is None
    assert topics.next_trial(5.1) is not None


def test_many_refusals_at_a_time_are_one() -> None:
    topics = paused()
    for n in range(3, 100):
        topics.pause(row(f"c{n}", n, topic="sick"), 0.1)
    assert topics.probes(5.1) == [SICK.id]


def test_a_probe_that_is_gone_is_replaced_by_the_next_row() -> None:
    topics = paused()
    topics.give_up_probe(SICK.id)
    assert topics.probes(5.1) == []
    assert topics.takes(OTHER, 5.1)
    topics.choose(OTHER)
    assert topics.probes(5.1) == [OTHER.id]
    assert not topics.takes(SICK, 5.1)


def test_a_row_that_waits_is_not_the_one_to_try_its_topic_with() -> None:
    topics = paused()
    topics.give_up_probe(SICK.id)
    assert topics.takes(SICK, 5.1)  # and it was not admitted, since it waits
    assert topics.takes(OTHER, 5.1)


def test_a_topic_that_worked_is_paused_no_more() -> None:
    topics = paused()
    assert topics.resume("sick")
    assert not topics.resume("sick")
    assert topics.takes(OTHER, 0.1)
    assert topics.passed_over(0.1) == set()


def test_one_line_per_topic_and_minute() -> None:
    topics = TopicPauses()
    told = [topics.pause(SICK, float(second)) for second in range(0, 130, 10)]
    assert told == [0, *[None] * 5, 0, *[None] * 5, 0]


def test_a_topic_that_works_and_fails_by_turns_has_one_line_per_minute_too() -> None:
    topics, told = TopicPauses(), []
    for second in range(0, 130, 10):
        told.append(topics.pause(SICK, float(second)))
        assert topics.resume("sick")
    assert [each for each in told if each is not None] == [0, 0, 0]


# --- more topics than anybody wants to hear of -------------------------------------------

MANY = [row(f"c{n}", n, topic=f"bad.{n:05}") for n in range(1, 5_001)]


def test_of_very_many_topics_only_some_are_tried_in_a_time() -> None:
    """As the relay: what is due is sent, and refused again."""
    topics, tried = TopicPauses(), list[tuple[float, RowId]]()
    rows = {each.id: each for each in MANY}
    for each in MANY:
        topics.pause(each, 0.0)
    for tenth in range(1, 6_000):
        now = tenth / 10
        for probe in topics.probes(now):
            topics.note_sent(rows[probe])
            topics.pause(rows[probe], now)
            tried.append((now, probe))
    for began in range(0, 600, 5):
        assert sum(began <= now < began + 5 for now, _ in tried) <= 2 * MAX_TRIED
    assert {probe for _, probe in tried} == rows.keys(), "they take turns"


def test_few_topics_are_tried_as_often_beside_each_other_as_alone() -> None:
    topics = TopicPauses()
    for each in MANY[:MAX_TRIED]:
        topics.pause(each, 0.0)
    assert topics.seconds_left(0.0) == 5.0
    assert len(topics.probes(5.0)) == MAX_TRIED


def test_what_is_told_of_very_many_topics_has_a_limit() -> None:
    topics = TopicPauses()
    topics.by_operator = {"events.mine": "repair", "bad.00001": "never"}
    lines = [topics.pause(each, 1.0) for each in MANY]
    assert [line for line in lines if line is not None] == [0] * 10
    assert topics.names().names[:3] == ["bad.00001", "events.mine", "bad.00002"]
    assert (len(topics.names().names), topics.names().more) == (50, 4_951)
    refused = topics.refused_topics(4.0)
    assert (len(refused.topics), refused.more) == (50, 4_950)
    assert refused.topics[0] == RefusedTopic("bad.00001", "broker", 3.0)
    assert len(topics.passed_over(1.0)) <= 1_000 + len(topics.by_operator)
    later = [topics.pause(each, 61.0) for each in MANY[::-1]]
    assert [line for line in later if line is not None] == [4_990, *[0] * 9]


def test_the_oldest_pause_gives_way_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.publisher.relay.memory.topics.MAX_PAUSES", 100)
    topics = TopicPauses()
    for each in MANY:
        topics.pause(each, 0.0)
        topics.note_sent(each)
        topics.give_up_probe(each.id)
    assert len(topics.refused) == 100
    assert topics.takes(MANY[0], 0.1), "it is tried again when it comes by"
    assert not topics.takes(MANY[-1], 0.1)


def test_what_an_operator_paused_is_never_tried() -> None:
    topics = paused()
    topics.by_operator = {"sick": "repair"}
    assert not topics.takes(SICK, 5.1)
    assert topics.passed_over(5.1) == {"sick"}
