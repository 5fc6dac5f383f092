"""From messages to entries of SQS and SNS: limits, groups and characters."""

import json
import re
from base64 import b64decode
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.brokers.aws.batch_client import MAX_ENTRIES, Entry, cut
from dsql_outbox.brokers.aws.message_entry import (
    MessageForm,
    broken_rule,
    entry_or_rejection,
    group_id,
    make_entry,
)
from dsql_outbox.publisher.sinks.port import Rejected
from dsql_outbox.testing.sink_contract import new_message

MAX_BYTES = 1 << 20
STANDARD = MessageForm(service="SQS", body="MessageBody", is_fifo=False, max_bytes=MAX_BYTES)
FIFO = MessageForm(service="SNS", body="Message", is_fifo=True, max_bytes=MAX_BYTES)


def attributes(entry: Entry) -> dict[str, str]:
    return {
        name: found["StringValue"] for name, found in entry.request["MessageAttributes"].items()
    }


def test_the_body_is_the_event_and_all_its_attributes_are_one() -> None:
    message = new_message(payload=b' {"a" : 1}', entities="Loan/Zo\xeb@1", tracestate="a=1, b=2")

    entry = make_entry(7, message, STANDARD)

    assert (entry.index, entry.request["Id"]) == (7, "7")
    assert entry.request["MessageBody"] == ' {"a" : 1}'
    read = attributes(entry)
    assert json.loads(read["cloudevent"]) == {
        name: value
        for name, value in message.headers.items()
        if name not in {"traceparent", "tracestate"}
    }
    assert read["cloudevent"].isascii()
    assert (read["topic"], read["dedupe-id"]) == (message.topic, message.dedupe_id)
    assert (read["traceparent"], read["tracestate"]) == (message.headers["traceparent"], "a=1, b=2")
    assert "MessageGroupId" not in entry.request


def test_a_fifo_queue_or_topic_gets_the_key_as_group_and_the_dedupe_id() -> None:
    message = new_message(key="Loan/7")

    entry = make_entry(0, message, FIFO)

    assert entry.request["Message"] == message.payload.decode()
    assert entry.request["MessageGroupId"] == "Loan/7"
    assert entry.request["MessageDeduplicationId"] == message.dedupe_id


@given(st.text(min_size=1))
def test_a_group_is_one_that_sqs_takes_and_the_key_itself_if_it_is_one(key: str) -> None:
    group = group_id(key)

    assert re.fullmatch(r"[!-~]{1,128}", group)
    assert (group == key) == bool(re.fullmatch(r"[!-~]{1,128}", key))


def test_keys_that_do_not_fit_have_groups_of_their_own() -> None:
    keys = ["x" * 129, "x" * 130, "a b", "", "é"]

    assert len({group_id(key) for key in keys}) == 5


@pytest.mark.parametrize("character", ["\0", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_a_character_that_sqs_would_not_keep_is_named(character: str) -> None:
    message = new_message(payload=f'{{"a":"{character}"}}'.encode())

    rule = broken_rule(make_entry(0, message, STANDARD), STANDARD)

    assert rule == f"SQS takes no character U+{ord(character):04X}"


@pytest.mark.parametrize("form", [STANDARD, FIFO])
@pytest.mark.parametrize("payload", [b"\xff\xfe", b"Obj\x01\x04\x80{}", "Zoë".encode("latin-1")])
def test_a_payload_that_is_no_text_is_rejected_without_its_bytes(
    payload: bytes, form: MessageForm
) -> None:
    found = entry_or_rejection(0, new_message(payload=payload), form)

    rule = "takes only UTF-8 as JSON or text; bytes need another content type"
    assert found == Rejected(f"{form.service} {rule}")


@pytest.mark.parametrize("form", [STANDARD, FIFO])
@pytest.mark.parametrize("payload", [b"\0\0\0\0\x07\xff", b'{"a":1}', b"\xff" * 3_001])
def test_a_payload_that_is_no_text_is_sent_in_base64_and_says_so(
    payload: bytes, form: MessageForm
) -> None:
    entry = entry_or_rejection(
        0, new_message(payload=payload, datacontenttype="application/avro"), form
    )

    assert isinstance(entry, Entry)
    body = entry.request[form.body]
    assert b64decode(body, validate=True) == payload
    assert attributes(entry)["content-transfer-encoding"] == "base64"
    assert json.loads(attributes(entry)["cloudevent"])["datacontenttype"] == "application/avro"
    sizes = [len(name) + len("String") + len(text) for name, text in attributes(entry).items()]
    assert entry.size == len(body) + sum(sizes)


@pytest.mark.parametrize("form", [STANDARD, FIFO])
@pytest.mark.parametrize("content_type", ["application/json", "text/csv", "application/avro"])
def test_an_empty_payload_is_rejected(content_type: str, form: MessageForm) -> None:
    empty = new_message(payload=b"", datacontenttype=content_type)

    assert entry_or_rejection(0, empty, form) == Rejected(f"{form.service} takes no empty message")


def test_a_topic_with_such_a_character_is_named_too() -> None:
    entry = make_entry(0, new_message(topic="events.\0"), STANDARD)

    assert broken_rule(entry, STANDARD) == "SQS takes no character U+0000"


def test_every_other_character_may_be_in_the_event() -> None:
    message = new_message(payload="\t\n\r \x7f\x85\u2028\ud7ff\ue000\ufffd😀".encode())

    assert broken_rule(make_entry(0, message, STANDARD), STANDARD) is None


def test_a_message_may_have_a_mebibyte_with_its_attributes_and_no_byte_more() -> None:
    rest = MAX_BYTES - make_entry(0, new_message(payload=b""), STANDARD).size
    fits, over = (
        make_entry(0, new_message(payload=b"x" * size), STANDARD) for size in (rest, rest + 1)
    )

    assert broken_rule(fits, STANDARD) is None
    assert broken_rule(over, STANDARD) == (
        f"message of {MAX_BYTES + 1} bytes is over the limit of SQS of {MAX_BYTES} bytes"
    )


@given(st.lists(st.integers(0, MAX_BYTES - 1000), max_size=40))
def test_requests_hold_every_entry_in_order_within_the_limits(sizes: list[int]) -> None:
    entries = [Entry(n, {}, size) for n, size in enumerate(sizes)]

    requests = list(cut(entries, MAX_BYTES))

    assert [entry for request in requests for entry in request] == entries
    for request in requests:
        assert 0 < len(request) <= MAX_ENTRIES
        assert sum(entry.size for entry in request) <= MAX_BYTES
    for request, following in pairwise(requests):
        total = sum(entry.size for entry in [*request, following[0]])
        assert len(request) == MAX_ENTRIES or total > MAX_BYTES, "no request is cut too early"
