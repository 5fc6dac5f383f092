"""From where the oldest message is looked for."""

from dsql_outbox.schema.oldest_look import HEAD_POSITION, OldestLook

FAR = 1_700_000_000_000_000
"""A position of 2023."""


def test_a_quick_look_is_from_the_head_each_time() -> None:
    look = OldestLook()
    for now in (0.0, 5.0, 10.0):
        assert look.since(now) == HEAD_POSITION
        look.note(HEAD_POSITION, FAR, began=now, now=now + 0.05)


def test_a_slow_look_from_the_head_takes_a_twentieth_of_the_time() -> None:
    """Between two of them, a look begins where the last one found a message."""
    look = OldestLook()
    look.note(HEAD_POSITION, FAR, began=0.0, now=2.0)
    assert look.since(5.0) == FAR
    look.note(FAR, FAR + 7, began=5.0, now=6.0)
    assert look.since(41.9) == FAR + 7
    assert look.since(42.0) == HEAD_POSITION


def test_if_no_message_waited_a_look_begins_shortly_before_now() -> None:
    look = OldestLook()
    look.note(HEAD_POSITION, None, began=0.0, now=2.0)
    assert look.since(5.0) > FAR


def test_a_look_from_the_head_without_an_answer_is_not_repeated_at_once() -> None:
    look = OldestLook()
    look.note_failure(HEAD_POSITION, began=0.0, now=3.0)
    assert look.since(3.0) > FAR
    assert look.since(63.0) == HEAD_POSITION


def test_a_look_from_the_head_without_an_answer_leaves_the_message_found_before() -> None:
    look = OldestLook()
    look.note(HEAD_POSITION, FAR, began=0.0, now=0.01)
    look.note_failure(HEAD_POSITION, began=5.0, now=8.0)
    assert look.since(8.0) == FAR
    look.note_failure(FAR, began=13.0, now=16.0)
    assert look.since(16.0) > FAR


def test_an_outage_changes_nothing() -> None:
    look = OldestLook()
    look.note_failure(HEAD_POSITION, began=0.0, now=0.01)
    assert look.since(0.01) == HEAD_POSITION
