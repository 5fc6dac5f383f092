"""Topics that take no messages: paused, tried with one message at a time, resumed."""

from tests.support.publisher.given_rows import row

from dsql_outbox.publisher.relay.memory.topics import TopicPauses

SICK, OTHER = row("a", 1, topic="sick"), row("b", 2, topic="sick")


def paused() -> TopicPauses:
    topics = TopicPauses(5.0)
    topics.refused(SICK, 0.0)
    return topics


def test_a_refused_topic_is_passed_over_until_it_may_be_tried() -> None:
    topics = paused()
    assert topics.names == {"sick"}
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
    topics.sending(SICK)
    assert topics.probes(5.1) == []
    assert topics.passed_over(5.1) == {"sick"}


def test_many_refusals_at_a_time_are_one() -> None:
    topics = paused()
    for n in range(3, 100):
        topics.refused(row(f"c{n}", n, topic="sick"), 0.1)
    assert topics.probes(5.1) == [SICK.id]


def test_a_probe_that_is_gone_is_replaced_by_the_next_row() -> None:
    topics = paused()
    topics.missed(SICK.id)
    assert topics.probes(5.1) == []
    assert topics.takes(OTHER, 5.1)
    topics.choose(OTHER)
    assert topics.probes(5.1) == [OTHER.id]
    assert not topics.takes(SICK, 5.1)


def test_a_row_that_waits_is_not_the_one_to_try_its_topic_with() -> None:
    topics = paused()
    topics.missed(SICK.id)
    assert topics.takes(SICK, 5.1)  # and it was not admitted, since it waits
    assert topics.takes(OTHER, 5.1)


def test_a_topic_that_worked_is_paused_no_more() -> None:
    topics = paused()
    assert topics.worked("sick")
    assert not topics.worked("sick")
    assert topics.takes(OTHER, 0.1)
    assert topics.passed_over(0.1) == set()


def test_one_line_per_topic_and_minute() -> None:
    topics = TopicPauses(5.0)
    told = [topics.refused(SICK, float(second)) for second in range(0, 130, 10)]
    assert told == [True, *[False] * 5, True, *[False] * 5, True]


def test_what_an_operator_paused_is_never_tried() -> None:
    topics = paused()
    topics.by_operator = {"sick": "repair"}
    assert not topics.takes(SICK, 5.1)
    assert topics.passed_over(5.1) == {"sick"}
