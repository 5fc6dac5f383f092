"""The frame of a message in the protocol of NATS: ``HPUB``, headers, payload.

`publish` of nats-py checks and strips each header by itself, which takes most of the
time of a message. Here the headers are one text, made from a form for their names.
"""

import re
from functools import lru_cache
from typing import Final

from dsql_outbox.outbox.message import Message, broken_header, reserved_subject
from dsql_outbox.publisher.sinks.cloudevents import binary_names, binary_values, encode_value

# Tokens between dots, without blanks and wildcards.
_SUBJECT: Final = re.compile(r"[^\s\x00-\x1f\x7f.*>]+(\.[^\s\x00-\x1f\x7f.*>]+)*")


class BadMessage(Exception):
    """NATS can never take the message; the text says why and contains no payload."""


def make_frame(message: Message, reply: str, max_payload: int, more: str = "") -> bytes:
    """The bytes that publish a message; its acknowledgement comes to the subject `reply`, if any.

    `more` are more headers, as lines. Raises `BadMessage` if the topic is no subject or one that
    NATS uses itself, a header has no valid name, or the message is over `max_payload`, the
    server's limit in bytes.
    """
    if fault := _subject_fault(message.topic):
        raise BadMessage(f"topic {message.topic!r} {fault}")
    headers = _headers(message, more)
    # The limit is for headers and payload together; the server disconnects a client above it.
    size = len(headers) + len(message.payload)
    if size > max_payload:
        raise BadMessage(
            f"message of {size} bytes is over the server's max_payload of {max_payload} bytes"
        )
    command = f"HPUB {message.topic} {reply} {len(headers)} {size}\r\n".encode()  # or no reply
    return b"".join((command, headers, message.payload, b"\r\n"))


def _headers(message: Message, more: str) -> bytes:
    given = message.wire_headers
    form = _form(tuple(message.headers), tuple(given))
    # The values are encoded or checked, so that none of them starts another header.
    lines = form % (encode_value(message.dedupe_id), *binary_values(message), *given.values())
    return f"{lines}{more}\r\n".encode()


@lru_cache
def _form(names: tuple[str, ...], given: tuple[str, ...]) -> str:
    """The lines of a message with these headers, and ``%s`` for each value."""
    wire = (*binary_names(names, "ce-"), *given)
    if rule := broken_header(dict.fromkeys(wire, "")):
        raise BadMessage(rule)
    lines = "".join(name.replace("%", "%%") + ": %s\r\n" for name in wire)
    return f"NATS/1.0\r\nNats-Msg-Id: %s\r\n{lines}"


@lru_cache(maxsize=1024)
def _subject_fault(topic: str) -> str | None:
    if not _SUBJECT.fullmatch(topic):
        return "is no subject of NATS: parts between dots, without blanks"
    return reserved_subject(topic)
