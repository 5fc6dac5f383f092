"""Where replayed messages go in the outbox."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.operations.replay_positions import Candidate, Placed, Positions
from dsql_outbox.outbox import SettingsError
from dsql_outbox.outbox.message import parse_subject_key, subject_key

_subjects = st.sampled_from(["Car/a", "Car/b", "Car/c"])
_clock = st.integers(min_value=0, max_value=50)
_transactions = st.lists(
    st.tuples(_clock, st.booleans(), st.lists(st.tuples(_subjects, _clock), max_size=6)),
    max_size=8,
)


def candidate(key: str, last_position: int, now: int) -> Candidate:
    return Candidate(
        event_id=UUID(int=1),
        key=key,
        type="CarMoved",
        topic="events.CarMoved",
        shard=0,
        at=datetime.now(UTC),
        headers={},
        size=0,
        last_position=last_position,
        replays=0,
        waiting=False,
        now_us=now,
    )


@given(_transactions)
def test_positions_of_a_subject_rise_and_each_names_the_one_before_that_was_committed(
    transactions: list[tuple[int, bool, list[tuple[str, int]]]],
) -> None:
    """Whatever the database's clock does, and whichever transactions fail."""
    positions = Positions()
    committed: list[Placed] = []
    for now, succeeds, asked in transactions:
        placed = positions.place([candidate(*each, now) for each in asked])
        if succeeds:
            positions.keep(placed)
            committed += placed
    last: dict[str, int] = {}
    for each in committed:
        key = each.candidate.key
        assert each.previous_position == last.get(key, 0)
        assert each.position > max(each.previous_position, each.candidate.last_position)
        last[key] = each.position


@given(_clock, st.lists(st.tuples(_subjects, _clock), min_size=1))
def test_no_place_is_before_the_clock(now: int, asked: list[tuple[str, int]]) -> None:
    for each in Positions().place([candidate(*each, now) for each in asked]):
        assert each.position >= now


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_subjects_key_is_read_back(entity_type: str, entity_id: str) -> None:
    try:
        key = subject_key(entity_type, entity_id)
    except UnicodeEncodeError:  # a lone surrogate, which no event can hold
        return
    assert parse_subject_key(key) == (entity_type, entity_id)
    assert key.isprintable()


@pytest.mark.parametrize(
    ("entity_type", "entity_id", "key"),
    [
        ("User", "ann@example.com", "User/ann@example.com"),
        ("Loan", "L 1, äß", "Loan/L 1, äß"),
        ("Car", "a/b", "Car/a/b"),
        ("Car/Van", "b", "Car%2FVan/b"),
        ("Car", "50%40", "Car/50%2540"),
        ("Car", "a\nb\x1b\u202e", "Car/a%0Ab%1B%E2%80%AE"),
    ],
)
def test_a_key_is_as_its_reader_writes_it(entity_type: str, entity_id: str, key: str) -> None:
    assert subject_key(entity_type, entity_id) == key


def test_a_subject_may_be_typed_without_encoding() -> None:
    assert parse_subject_key("Car/a b/c") == ("Car", "a b/c")


@pytest.mark.parametrize("key", ["", "Car", "/", "Car/", "/a"])
def test_what_is_no_subject_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="is no TYPE/ID, as in Loan/LOAN-7"):
        parse_subject_key(key)
