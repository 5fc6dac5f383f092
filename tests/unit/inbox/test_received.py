"""What a reader makes of headers that a publisher did not write."""

import re
from typing import Any
from uuid import uuid4

import pytest

from dsql_outbox.inbox import from_kafka, from_nats, from_sqs
from dsql_outbox.inbox.received import received
from dsql_outbox.outbox import UnreadableMessage

GOOD = {"id": str(uuid4()), "subject": "Loan/a%2Fb", "position": "20", "previousposition": "10"}


class Given:
    """A message of NATS or Kafka."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers
        self.subject, self.data, self.headers = "t", b"{}", headers

    def topic(self) -> None:
        return None

    value = topic


def test_attributes_and_trace_headers_are_told_apart() -> None:
    found = received(GOOD | {"traceparent": "00-1"}, dedupe_id="d", topic="t", data=b"{}")
    assert (found.trace, found.headers) == ({"traceparent": "00-1"}, GOOD)
    assert (found.position, found.previous_position, found.replay) == (20, 10, None)
    assert found.subject == ("Loan", "a/b")


@pytest.mark.parametrize("part", sorted(GOOD))
def test_a_missing_attribute_is_named(part: str) -> None:
    with pytest.raises(UnreadableMessage, match=f"no valid {part}: it is missing") as raised:
        received(
            {name: GOOD[name] for name in GOOD if name != part}, dedupe_id="", topic="", data=b""
        )
    assert raised.value.part == part


@pytest.mark.parametrize(
    ("part", "text", "rule"),
    [
        ("id", "7", "it is no UUID"),
        ("subject", "Loan", "it is no TYPE/ID"),
        ("position", "-1", "it is no whole number"),
        ("previousposition", "\u0663", "it is no whole number"),
        ("replay", "x", "it is no whole number"),
    ],
)
def test_an_attribute_that_is_not_valid_is_named(part: str, text: str, rule: str) -> None:
    with pytest.raises(UnreadableMessage, match=re.escape(f"no valid {part}: {rule}")):
        received(GOOD | {part: text}, dedupe_id="d", topic="t", data=b"")


@pytest.mark.parametrize("headers", [None, {}, {"ce-id": "%FF"}])
def test_a_foreign_message_of_nats_is_unreadable(headers: Any) -> None:
    with pytest.raises(UnreadableMessage):
        from_nats(Given(headers))


@pytest.mark.parametrize("headers", [None, [], [("dedupe-id", b"\xff")], [("dedupe-id", None)]])
def test_a_foreign_message_of_kafka_is_unreadable(headers: Any) -> None:
    message: Any = Given(None)
    message.headers = lambda: headers
    with pytest.raises(UnreadableMessage):
        from_kafka(message)


@pytest.mark.parametrize("text", [None, "[]", "{", '{"id": 1}'])
def test_a_foreign_record_of_sqs_is_unreadable(text: str | None) -> None:
    attributes = {} if text is None else {"cloudevent": {"stringValue": text}}
    with pytest.raises(UnreadableMessage):
        from_sqs({"body": "{}", "messageAttributes": attributes})
