"""What a reader makes of headers that a publisher did not write."""

import json
import re
from typing import Any
from uuid import uuid4

import pytest

from dsql_outbox.inbox import Received, from_kafka, from_nats, from_sqs
from dsql_outbox.inbox import received as module
from dsql_outbox.inbox.received import received_message
from dsql_outbox.outbox import UnreadableMessage

GOOD = {
    "id": str(uuid4()),
    "source": "/shop",
    "subject": "Loan/a%2Fb",
    "position": "20",
    "previousposition": "10",
}
BIGINT = 2**63 - 1
NOW = 1_795_629_600


class Given:
    """A message of NATS or Kafka."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers
        self.subject, self.data, self.headers = "t", b"{}", headers

    def topic(self) -> None:
        return None

    value = topic


def test_attributes_and_trace_headers_are_told_apart() -> None:
    found = received_message(GOOD | {"traceparent": "00-1"}, dedupe_id="d", topic="t", data=b"{}")
    assert (found.trace, found.headers) == ({"traceparent": "00-1"}, GOOD)
    assert (found.position, found.previous_position, found.replay) == (20, 10, None)
    assert (found.source, found.subject_type, found.subject_id) == ("/shop", "Loan", "a/b")


def received(content_type: str | None, data: bytes) -> Received:
    named = {} if content_type is None else {"datacontenttype": content_type}
    return received_message(GOOD | named, dedupe_id="d", topic="t", data=data)


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/vnd.shop+json; v=2", "Text/JSON"]
)
def test_json_is_decoded(content_type: str | None) -> None:
    found = received(content_type, '{"total":12.50,"name":"Zoë"}'.encode())
    assert found.content_type == (content_type or "application/json")
    assert found.json() == {"total": 12.5, "name": "Zoë"}


@pytest.mark.parametrize(
    "content_type", ["application/avro", "text/plain", "", "application/x\r\n"]
)
def test_another_content_is_not_decoded_and_the_error_names_its_type(content_type: str) -> None:
    found = received(content_type, b'{"secret":1}')
    assert (found.content_type, found.data) == (content_type, b'{"secret":1}')
    with pytest.raises(UnreadableMessage, match=re.escape(repr(content_type))) as raised:
        found.json()
    assert raised.value.part == "JSON"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"{", b'"\xff"', b"\0\0\0\0\x07", b"[" * 100_000])
def test_what_claims_to_be_json_and_is_none_fails_without_its_bytes(data: bytes) -> None:
    with pytest.raises(
        UnreadableMessage, match="no valid JSON: `data` cannot be decoded"
    ) as raised:
        received("application/json", data).json()
    assert raised.value.part == "JSON"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


SQS = {"cloudevent": None, "dedupe-id": "d", "topic": "t"}


@pytest.mark.parametrize(
    ("encoding", "body", "part", "rule"),
    [
        ("base64", "AAAA*", "body", "it is no base64"),
        ("base64", "AAA", "body", "it is no base64"),
        ("base64", "Zo\u00eb=", "body", "it is no base64"),
        ("gzip", "AAAA", "content-transfer-encoding", "it is not base64"),
        ("", "AAAA", "content-transfer-encoding", "it is not base64"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_named(
    encoding: str, body: str, part: str, rule: str
) -> None:
    texts = SQS | {"cloudevent": json.dumps(GOOD), "content-transfer-encoding": encoding}
    attributes = {name: {"stringValue": text} for name, text in texts.items()}
    with pytest.raises(UnreadableMessage, match=f"no valid {part}: {rule}") as raised:
        from_sqs({"body": body, "messageAttributes": attributes})
    assert raised.value.part == part


@pytest.mark.parametrize("part", sorted(GOOD))
def test_a_missing_attribute_is_named(part: str) -> None:
    with pytest.raises(UnreadableMessage, match=f"no valid {part}: it is missing") as raised:
        received_message(
            {name: GOOD[name] for name in GOOD if name != part}, dedupe_id="d", topic="", data=b""
        )
    assert raised.value.part == part


@pytest.mark.parametrize(
    ("part", "text", "rule"),
    [
        ("id", "7", "it is no UUID"),
        ("subject", "Loan", "it is no TYPE/ID"),
        ("id", "", "it is no UUID"),
        ("subject", "Loan/", "it is no TYPE/ID"),
        ("subject", "Loan/%FF", "it is no TYPE/ID in percent-encoded UTF-8"),
        ("subject", "Loan/real%00x", "its type has 4 characters, of 1 to 64, and its id 6"),
        ("subject", "Lo%00an/1", "its type has 5 characters"),
        ("subject", f"{'T' * 65}/1", "its type has 65 characters, of 1 to 64, and its id 1"),
        ("subject", f"T/{'1' * 129}", "its type has 1 characters, of 1 to 64, and its id 129"),
        ("subject", "Loan/\ud800", "its type has 4 characters"),
        ("source", "", "it has 0 characters, of 1 to 128"),
        ("source", "s" * 129, "it has 129 characters, of 1 to 128"),
        ("source", "/a\0b", "it has 4 characters"),
        ("source", "/caf\u00e9", "it has 5 characters"),
        ("position", "-1", "it is no whole number"),
        ("position", "", "it is no whole number"),
        ("position", str(BIGINT + 1), f"it is no whole number from 0 to {BIGINT}"),
        ("position", "9" * 5000, "it is no whole number"),
        ("position", "0" * 5000 + "1x", "it is no whole number"),
        ("position", str(BIGINT), "it is 9,22"),
        ("previousposition", "\u0663", "it is no whole number"),
        ("previousposition", "1" * 20, "it is no whole number"),
        ("replay", "x", "it is no whole number"),
        ("replay", str(BIGINT + 1), "it is no whole number"),
    ],
)
def test_an_attribute_that_is_not_valid_is_named(part: str, text: str, rule: str) -> None:
    with pytest.raises(UnreadableMessage, match=re.escape(f"no valid {part}: {rule}")) as raised:
        received_message(GOOD | {part: text}, dedupe_id="d", topic="t", data=b"")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("text", ["", "d" * 129, "a\0b", "\ud800"])
def test_an_id_of_a_message_that_cannot_be_remembered_is_named(text: str) -> None:
    with pytest.raises(UnreadableMessage, match=f"no valid dedupe id: it has {len(text)} char"):
        received_message(GOOD, dedupe_id=text, topic="t", data=b"")


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("position", "0" * 5000 + "7"),
        ("previousposition", str(BIGINT)),
        ("replay", "0"),
        ("source", "s" * 128),
        ("subject", f"{'%C3%A9' * 64}/{'%F0%9F%9A%97' * 128}"),
    ],
)
def test_the_longest_and_highest_values_are_taken(part: str, text: str) -> None:
    assert (
        received_message(GOOD | {part: text}, dedupe_id="d" * 128, topic="t", data=b"").data == b""
    )


@pytest.mark.parametrize(("ahead", "is_taken"), [(-9, True), (0, True), (300, True), (301, False)])
def test_a_position_is_at_most_five_minutes_ahead_of_this_machine(
    ahead: int, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time", lambda: NOW + 0.999)
    headers = GOOD | {"position": str((NOW + ahead) * 1_000_000)}
    if is_taken:
        assert received_message(headers, dedupe_id="d", topic="t", data=b"").position
        return
    with pytest.raises(UnreadableMessage, match=r"it is 301 s ahead of .* the limit of 300 s"):
        received_message(headers, dedupe_id="d", topic="t", data=b"")


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


@pytest.mark.parametrize("text", [None, "[]", "{", '{"id": 1}', "\ud800"])
def test_a_foreign_record_of_sqs_is_unreadable(text: str | None) -> None:
    attributes = {} if text is None else {"cloudevent": {"stringValue": text}}
    with pytest.raises(UnreadableMessage):
        from_sqs({"body": "{}", "messageAttributes": attributes})


def test_a_body_of_sqs_that_is_no_text_is_unreadable() -> None:
    attributes = {"cloudevent": {"stringValue": "{}"}, "dedupe-id": {"stringValue": "1"}}
    with pytest.raises(UnreadableMessage, match="body"):
        from_sqs({"body": "\ud800", "messageAttributes": attributes})
