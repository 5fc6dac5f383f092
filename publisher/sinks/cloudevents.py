"""CloudEvents 1.0 in binary mode: the attributes are headers, the payload stands as it is.

The rules for names and values come from the CloudEvents bindings. For HTTP (1.0.2) and NATS
(1.0.3-wip, the first with a binary mode) they are in section 3.1.3, for Kafka (1.0.2) in
section 3.2.3. The binding for RabbitMQ is that of Knative, which the SDKs of CloudEvents follow.
"""

import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from dsql_outbox.outbox.content_type import is_text
from dsql_outbox.outbox.message import TRACE_HEADERS, Message

# Section 3.1.3.2, header values: "space, double-quote, percent and any character
# outside the printable ASCII range of U+0021-U+007E" are percent-encoded as UTF-8.
# This also prevents a line break in an id from starting another header.
_ENCODED: Final = re.compile(r"[^!#$&-~]")

# W3C trace headers have their own encoding. Only characters that no header may hold are changed.
_NOT_PRINTABLE: Final = re.compile(r"[^ -~]")

ONLY_UTF8: Final = "takes only UTF-8 as JSON or text; bytes need another content type"
"""Why a sink that takes text only rejects a payload that is not what its content type says."""

_QUOTED_PAIR: Final = re.compile(r"\\(.)")


def binary_headers(message: Message, prefix: str) -> dict[str, str]:
    """The message's headers in binary mode and those of a map, as printable ASCII.

    Each attribute gets `prefix`, which is "ce-" for NATS (section 3.1.3.1). The NATS
    binding also prefixes datacontenttype, because a Content-Type header marks the
    structured mode there. Trace headers keep their names.
    """
    names = binary_names(tuple(message.headers), prefix)
    return {**dict(zip(names, binary_values(message), strict=True)), **message.wire_headers}


@lru_cache
def binary_names(names: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """The names of headers in binary mode; most messages have the same ones."""
    return tuple(name if name in TRACE_HEADERS else prefix + name for name in names)


def binary_values(message: Message) -> Collection[str]:
    """The values of the message's headers in binary mode, in the order of the headers."""
    headers = message.headers
    if _ENCODED.search("".join(headers.values())) is None:  # so in most messages
        return headers.values()
    return [_encode_header(name, value) for name, value in headers.items()]


def kafka_headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    """The message's headers for Kafka: names with "ce_", values as UTF-8 without percent-encoding.

    `datacontenttype` becomes ``content-type`` (section 3.2.1). Trace headers keep
    their names. ``dedupe-id`` has the same value each time a message is sent.
    """
    names = _kafka_names(tuple(message.headers))
    values = [value.encode(errors="replace") for value in message.headers.values()]
    given = [(name, value.encode()) for name, value in message.wire_headers.items()]
    return [("dedupe-id", message.dedupe_id.encode()), *zip(names, values, strict=True), *given]


@lru_cache
def _kafka_names(names: tuple[str, ...]) -> tuple[str, ...]:
    own = {"datacontenttype": "content-type"} | {name: name for name in TRACE_HEADERS}
    return tuple(own.get(name, f"ce_{name}") for name in names)


def rabbitmq_headers(message: Message) -> dict[str, str]:
    """The message's headers for RabbitMQ: names with "ce-", values without percent-encoding.

    `datacontenttype` is left out, because it is a property of the message there.
    """
    headers = message.headers
    names = binary_names(tuple(headers), "ce-")
    values = [
        value if value.isascii() else value.encode(errors="replace").decode()
        for value in headers.values()
    ]
    wire = dict(zip(names, values, strict=True))
    wire.pop("ce-datacontenttype", None)
    return wire | dict(message.wire_headers)


def text_or_base64(message: Message) -> tuple[str, bool]:
    """The payload for a broker that takes text only, and whether it is in base64.

    The content type decides, as in the JSON format of CloudEvents (1.0.2, section 3.1), and not
    the bytes: so all messages of a contract have the same form. Raises `UnicodeDecodeError` if the
    payload is no UTF-8 although its content type is text.
    """
    if is_text(message.content_type):
        return message.payload.decode(), False
    return b64encode(message.payload).decode(), True


def attributes(headers: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The attributes and trace headers of a received message: the reverse of `binary_headers`.

    Consumers use it. Other headers are left out, and names are in lower case. Raises
    `UnicodeDecodeError` if a percent-encoded value is not UTF-8, as section 3.1.3.2
    demands.
    """
    found = {name.lower(): value for name, value in headers.items()}
    read: dict[str, str] = {name: found[name] for name in TRACE_HEADERS if name in found}
    for name, value in found.items():
        if name.startswith(prefix):
            read[name.removeprefix(prefix)] = decode_value(value)
    return read


def encode_value(value: str) -> str:
    """Encode an attribute as the value of a header (section 3.1.3.2)."""
    return _ENCODED.sub(_percent, value)


def decode_value(value: str) -> str:
    """Decode an attribute from the value of a header (section 3.1.3.2).

    A value in double quotes comes from a sender that follows an older version of the
    specification. Raises `UnicodeDecodeError` if the value is not UTF-8.
    """
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _QUOTED_PAIR.sub(r"\1", value[1:-1])
    return unquote(value, errors="strict")


def _encode_header(name: str, value: str) -> str:
    return _NOT_PRINTABLE.sub(_percent, value) if name in TRACE_HEADERS else encode_value(value)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="replace"))
