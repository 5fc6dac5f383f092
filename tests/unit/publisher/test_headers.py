"""Header names that every broker takes, and those that some would refuse."""

from uuid import UUID

import pytest

from dsql_outbox.outbox import broken_header
from dsql_outbox.publisher.outbox_rows import OutboxRow, read_headers
from dsql_outbox.publisher.relay.selection import select


@pytest.mark.parametrize("name", ["x user", "", "x:y", "a\r\nb", "\0", "é", 'a"b', "x\x7f"])
def test_a_name_that_is_no_token_is_named(name: str) -> None:
    rule = broken_header({"traceparent": "v", name: "secret"})
    assert rule is not None
    assert ascii(name) in rule
    assert "secret" not in rule


def test_a_long_name_is_cut() -> None:
    rule = broken_header({" " * 1_000_000: "v"})
    assert rule is not None
    assert len(rule) < 200


def test_every_character_of_a_token_is_taken() -> None:
    assert broken_header({"!#$%&'*+-.^_`|~09AZaz": ""}) is None
    assert broken_header({}) is None


@pytest.mark.parametrize(
    "text", ["[]", '"a"', "null", "1", '{"a":1}', '{"a":[]}', r'{"a":"\ud800"}', "{", ""]
)
def test_headers_that_cannot_be_read_are_none_with_a_fault(text: str) -> None:
    assert read_headers(text) == ({}, "headers are no JSON object of texts")


@pytest.mark.parametrize(("number", "is_one"), [("7", True), ("", False), ("1.0", False)])
def test_the_replay_header_is_a_number(number: str, is_one: bool) -> None:
    assert (read_headers(f'{{"replay":"{number}"}}').fault is None) is is_one


def row(position: int, *, headers: str = "{}", previous: int = 0) -> OutboxRow:
    return OutboxRow(
        0, position, UUID(int=7), previous, "Car", "a", 1, "t", headers, "{}", 0, 1, previous > 0
    )


def test_a_faulty_row_is_set_apart_and_what_is_behind_it_waits() -> None:
    rows = [row(1), row(2, headers="[]", previous=1), row(3, previous=2)]
    selection = select(rows, {}, {}, 0.0)
    assert (selection.rows, selection.faulty, selection.held) == (rows[:1], rows[1:2], 1)


@pytest.mark.parametrize(("position", "previous"), [(0, 0), (-5, -9), (5, 5), (5, 8)])
def test_a_row_at_an_impossible_place_is_faulty_and_waits_for_nothing(
    position: int, previous: int
) -> None:
    bad = row(position, previous=previous)
    assert select([bad], {}, {}, 0.0) == ([], 0, set(), [bad])


def test_a_faulty_row_waits_for_its_predecessor() -> None:
    bad = row(5, headers="[]", previous=4)
    assert select([bad], {}, {}, 0.0) == ([], 1, {0}, [])
