"""What is a content type, and what it says about the payload."""

import pytest

from dsql_outbox.outbox.content_type import content_type_fault, is_json, is_text
from dsql_outbox.testing.sink_contract import new_message

JSON = ["application/json", "Application/JSON; charset=utf-8", "text/json", "application/ld+json"]
TEXT = ["text/plain", 'TEXT/csv; header="a; b"', "application/xml", "image/svg+xml ; v=1"]
BINARY = [
    "application/avro",
    "application/octet-stream",
    "application/jsonl",
    'a/b; t="text/plain"',
]


@pytest.mark.parametrize("content_type", [*JSON, *TEXT, *BINARY])
def test_a_content_type_is_json_or_text_or_binary(content_type: str) -> None:
    assert content_type_fault(content_type) is None
    assert is_json(content_type) == (content_type in JSON)
    assert is_text(content_type) == (content_type not in BINARY)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "json",
        "application/",
        "/json",
        "application/json\n",
        "application/json\r\nx-forged: yes",
        'text/plain; a="b\nc"',
        "text/plain;\tcharset=utf-8",
        "text/pläin",
        "text/plain; name=Zoë",
        "text/plain; charset",
        "text/plain\0",
        "text/plain text/plain",
    ],
)
def test_what_could_add_a_header_or_is_no_media_type_is_refused(content_type: str) -> None:
    fault = content_type_fault(content_type)

    assert fault is not None
    assert ascii(content_type) in fault


def test_an_error_shows_the_beginning_of_a_long_content_type() -> None:
    assert len(content_type_fault("x" * 5_000) or "") < 150


def test_a_message_has_the_content_type_that_its_headers_name() -> None:
    assert new_message().content_type == "application/json"
    assert new_message(datacontenttype="application/avro").content_type == "application/avro"
