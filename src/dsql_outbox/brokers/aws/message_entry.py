"""Build the entries of SQS and SNS, which differ in the name of the body only.

The body is the exact text of the payload, or its base64 if the content type is not text; then
the attribute ``content-transfer-encoding`` says so, which is the term of MIME (RFC 2045).
CloudEvents has no binding for SQS and SNS, and a message has at most ten attributes, so all
CloudEvents attributes are one JSON attribute, ``cloudevent``. The limits come from the SQS
Developer Guide, "Message quotas", and the API references of SendMessageBatch and PublishBatch.
"""

import json
import re
import string
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from dsql_outbox.outbox.message import TRACE_HEADERS, Message
from dsql_outbox.publisher.sinks.cloudevents import ONLY_UTF8, binary_headers, text_or_base64
from dsql_outbox.publisher.sinks.port import Rejected

from .batch_client import Entry

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that the services refuse, or replace by U+FFFD."""

_GROUP_CHARACTERS: Final = string.punctuation
"""A group id takes these beside letters and digits. Percent is one: keys have encoded theirs."""

_MAX_GROUP: Final = 128
"""The limit of characters of a group id."""

_MAX_ATTRIBUTES: Final = 10
_TYPE: Final = "String"


@dataclass(frozen=True, kw_only=True)
class MessageForm:
    """The form of a message for a service."""

    service: str
    body: str
    """The name of the body in an entry."""
    is_fifo: bool
    max_bytes: int
    """The limit for a message with its attributes, and for a request."""


def entry_or_rejection(index: int, message: Message, form: MessageForm) -> Entry | Rejected:
    """The entry of a message, or why the service would refuse or change it."""
    try:
        entry = make_entry(index, message, form)
    except UnicodeDecodeError:
        return Rejected(f"{form.service} {ONLY_UTF8}")
    rule = broken_rule(entry, form)
    return Rejected(rule) if rule else entry


def make_entry(index: int, message: Message, form: MessageForm) -> Entry:
    """The entry of the message with this index. Raises `UnicodeDecodeError` if a text is no UTF-8.

    FIFO queues and topics get a group id and the message's dedupe id.
    """
    text, is_base64 = text_or_base64(message)
    attributes = {name: value for name, value in _attributes(message).items() if value}
    if is_base64:
        attributes["content-transfer-encoding"] = "base64"
    request: dict[str, Any] = {
        "Id": str(index),
        form.body: text,
        "MessageAttributes": {  # an empty attribute is refused
            name: {"DataType": _TYPE, "StringValue": value} for name, value in attributes.items()
        },
    }
    if form.is_fifo:
        request["MessageGroupId"] = group_id(message.broker_key)
        request["MessageDeduplicationId"] = message.dedupe_id
    names = sum(len(name) + len(_TYPE) for name in attributes)
    return Entry(index, request, names + sum(map(_bytes, [text, *attributes.values()])))


def group_id(key: str) -> str:
    """The message group id of a key, which AWS limits to ASCII without a space.

    Other characters are percent-encoded as UTF-8. An id that becomes too long is
    ``sha256:`` and the hash of the key.
    """
    group = quote(key, safe=_GROUP_CHARACTERS, errors="replace")
    if len(group) <= _MAX_GROUP:
        return group
    return f"sha256:{sha256(key.encode(errors='replace')).hexdigest()}"


def broken_rule(entry: Entry, form: MessageForm) -> str | None:
    """The reason why the service would refuse or change the message, or None."""
    if not entry.request[form.body]:
        return f"{form.service} takes no empty message"
    for text in [entry.request[form.body], *_values(entry)]:
        if found := _FORBIDDEN.search(text):
            return f"{form.service} takes no character U+{ord(found[0]):04X}"
    if (number := len(_values(entry))) > _MAX_ATTRIBUTES:
        limit = f"the limit of {form.service} of {_MAX_ATTRIBUTES}"
        return f"{number} attributes are over {limit}: let the map add fewer headers"
    if entry.size > form.max_bytes:
        limit = f"the limit of {form.service} of {form.max_bytes} bytes"
        return f"message of {entry.size} bytes is over {limit}"
    return None


def _attributes(message: Message) -> dict[str, str]:
    wire = binary_headers(message, "ce-")
    own = {name: value for name, value in message.headers.items() if name not in TRACE_HEADERS}
    return {
        "cloudevent": json.dumps(own, separators=(",", ":")),  # ASCII only: AWS accepts all of it
        "dedupe-id": message.dedupe_id,
        "topic": message.topic,
        **{name: wire[name] for name in TRACE_HEADERS if name in wire},
        **message.wire_headers,
    }


def _values(entry: Entry) -> list[str]:
    return [found["StringValue"] for found in entry.request["MessageAttributes"].values()]


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
