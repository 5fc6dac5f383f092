"""Binary mode: what is in the headers, and that no value can add one."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks import attributes, binary_headers, decode_value, encode_value

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ID = UUID("6f4f7a0e-5a51-4f0c-8d7e-0d1f4c3a9b11")


def message(**headers: str) -> Message:
    return Message(ID, "events.LoanCreated", "Loan/1", headers, b"{}", str(ID), 0, 0)


def test_attributes_get_the_prefix_and_datacontenttype_is_one_of_them() -> None:
    headers = binary_headers(
        message(specversion="1.0", id="7", datacontenttype="application/json"), "ce-"
    )

    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-datacontenttype": "application/json",
    }


def test_trace_headers_keep_their_names_and_their_own_encoding() -> None:
    traced = message(traceparent=TRACEPARENT, tracestate="a=1, b=2", baggage="user=J%C3%B6")

    assert binary_headers(traced, "ce-") == traced.headers


def test_the_example_of_the_specification_is_encoded_as_it_says() -> None:
    assert encode_value("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ('a"b', "a%22b"),
        ("100%", "100%25"),
        ("!#$&'()*+,-./:;<=>?@[\\]^_`{|}~", "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        ("\x7f\x80", "%7F%C2%80"),
        ("\ud800", "%3F"),
        ("", ""),
    ],
)
def test_exactly_what_must_be_encoded_is_encoded(value: str, encoded: str) -> None:
    assert encode_value(value) == encoded


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("%e2%82%ac", "€"),
        ("%41", "A"),
        ("a%2520b", "a%20b"),
        (r'"say \"hi\""', 'say "hi"'),
        ('"', '"'),
    ],
)
def test_values_of_other_senders_are_read(value: str, decoded: str) -> None:
    assert decode_value(value) == decoded


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_value("%C0%A0")


def test_a_reader_gets_attributes_whatever_the_case_and_no_other_headers() -> None:
    headers = {"Ce-Id": "a%20b", "Nats-Msg-Id": "7", "Traceparent": TRACEPARENT}

    assert attributes(headers, "ce-") == {"id": "a b", "traceparent": TRACEPARENT}


@given(st.text(st.characters(codec="utf-8")))
def test_any_value_is_printable_ascii_without_blanks_and_comes_back(value: str) -> None:
    encoded = encode_value(value)

    assert re.fullmatch(r"[!-~]*", encoded)
    assert decode_value(encoded) == value


@given(st.text())
def test_no_value_can_break_a_line(value: str) -> None:
    headers = binary_headers(message(id=value, tracestate=value), "ce-")

    assert len(headers) == 2
    assert all(re.fullmatch(r"[ -~]*", written) for written in headers.values())
