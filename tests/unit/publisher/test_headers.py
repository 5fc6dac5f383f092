"""Header names that every broker takes, and those that some would refuse."""

import pytest
from tests.support.publisher.given_rows import row

from dsql_outbox.outbox.message import broken_header
from dsql_outbox.schema.outbox_rows import Fault, messages_of, read_headers


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
    assert read_headers(text) == ({}, "headers are not a JSON object of texts")


@pytest.mark.parametrize(("number", "is_one"), [("7", True), ("", False), ("1.0", False)])
def test_the_replay_header_is_a_number(number: str, is_one: bool) -> None:
    assert (read_headers(f'{{"replay":"{number}"}}').fault is None) is is_one


@pytest.mark.parametrize(
    ("position", "previous", "headers", "reason"),
    [
        (0, 0, "{}", "position 0 is below 1"),
        (-5, -9, "{}", "position -5 is below 1"),
        (5, 5, "{}", "it would wait for position 5, which is not before it"),
        (5, 8, "{}", "it would wait for position 8, which is not before it"),
        (5, 1, "[]", "headers are not a JSON object of texts"),
    ],
)
def test_a_row_that_can_be_no_message_says_why_and_waits_for_nothing_later(
    position: int, previous: int, headers: str, reason: str
) -> None:
    bad = row("a", position, previous=previous, headers=headers)
    assert bad.message(attempt=1, picked_up_ns=0, epoch=1) == Fault(reason)
    assert bad.waits == (0 < previous < position)


@pytest.mark.parametrize(
    "headers",
    ["{}", '{"a":"b"}', "[]", "null", '{"a":1}', '{"replay":"2"}', '{"replay":"x"}', '{"a b":"c"}'],
)
def test_a_row_makes_the_same_message_beside_others_as_alone(headers: str) -> None:
    rows = [
        row("a", 1, headers='{"id":"1"}'),
        row("b", 2, headers=headers),
        row("c", 3, previous=3),
        row("d", 4, headers='{"id":"4"}'),
    ]
    together = messages_of(
        [each.raw for each in rows],
        [each.key for each in rows],
        5,
        attempts=range(1, len(rows) + 1),
        epochs=range(11, len(rows) + 11),
    )
    alone = [
        each.message(attempt=at, picked_up_ns=5, epoch=10 + at) for at, each in enumerate(rows, 1)
    ]
    assert list(together) == alone
