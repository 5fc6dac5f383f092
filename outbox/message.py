"""The message that a broker receives, its topic, its headers and its key."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, unquote
from uuid import UUID

import msgspec

from .content_type import JSON
from .errors import SettingsError

TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
"""The headers of W3C Trace Context and Baggage. They are not CloudEvents attributes."""

RESERVED_HEADERS: Final = frozenset(
    {
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"),
        *("entities", "partitionkey", "sequence", "position", "previousposition", "leaseepoch"),
        *("replay", *TRACE_HEADERS),
    }
)
"""The headers that the outbox sets itself. An event cannot set them."""

MAX_TOPIC: Final = 249
"""The limit of Apache Kafka for a topic, in characters."""

_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_NOT_IN_TOPICS: Final = re.compile(r"[^A-Za-z0-9._-]").search

_PLAIN_TYPE: Final = re.compile(r"[ -$&-.0-~]*").fullmatch
_PLAIN_ID: Final = re.compile(r"[ -$&-~]*").fullmatch
"""Printable ASCII without what a key percent-encodes. Nearly every key matches."""

_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
"""Characters that need no percent-encoding (RFC 3986, section 2.3)."""


_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Message(msgspec.Struct, frozen=True, gc=False):
    """One event on its way to a broker.

    A sink gets messages, and answers for each of them.

        >>> class Counter:  # a sink, as in docs/writing-a-sink.md
        ...     system = "counter"
        ...
        ...     async def publish(self, messages: list[Message], answer) -> None:
        ...         print(len(messages), "messages")
    """

    event_id: UUID
    """The id of the event."""

    topic: str
    """The topic, from the event, from the template of its writer, or from a map."""

    key: str
    """The subject as ``TYPE/ID``. A sink must store messages of one key in the order in which it
    receives them. The key for the broker is `broker_key`."""

    headers: dict[str, str]
    """The CloudEvents 1.0 attributes under their plain names (``id``, ``type``, ..) and the W3C
    trace headers. A sink writes them as the CloudEvents binding of its broker says."""

    payload: bytes
    """The JSON text of the event as received, or what the map of the publisher made of it."""

    dedupe_id: str
    """The same each time the message is sent, and another one for each target and replay."""

    committed_ns: int
    """The time of the write by the database's clock, in nanoseconds since the Unix epoch."""

    picked_up_ns: int
    """The time of the read by the publisher's clock, in nanoseconds since the Unix epoch."""

    attempt: int = 1
    """The number of this attempt to send it, from 1. Continues after a restart."""

    wire_key: str | None = None
    """The key that a map gave it."""

    wire_headers: Mapping[str, str] = _NONE
    """The headers that a map added under names of its own, which a sink writes as they are. Names
    have letters, digits and ``-_.``, and values are printable ASCII."""

    is_deletion: bool = False
    """Whether a map returned `TOMBSTONE`: the message has no payload. Only a sink that says so
    gets such messages."""

    properties: msgspec.Struct | None = None
    """What a map set for one broker alone, as `RabbitMqProperties`."""

    stored_topic: str | None = None
    """The topic that the outbox has, if a map gave it another one."""

    @property
    def broker_key(self) -> str:
        """The key for a broker that is given one, as Kafka: that of the map, or the subject."""
        return self.key if self.wire_key is None else self.wire_key

    @property
    def content_type(self) -> str:
        """The content type of the payload, which is the attribute ``datacontenttype``."""
        return self.headers.get("datacontenttype", JSON)


def message_headers(
    event_id: str, event_type: str, created: datetime | None, source: str
) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes that are known before the write.

    `created` is in UTC. If it is None, the database adds its own date. `source` is
    the CloudEvents source.
    """
    headers = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "datacontenttype": JSON,
    }
    if created is not None:
        headers["time"] = created.isoformat(timespec="microseconds")
    return headers


def topic_fault(topic: str) -> str | None:
    """Return why a text is not a topic that every broker takes, or None if it is one.

    A topic has 1 to 249 of the characters A-Z a-z 0-9 . _ - and no empty part
    between dots. So it is a topic of Kafka and a subject of NATS. It is no subject
    that NATS uses itself.
    """
    return topic_name_fault(topic) or reserved_subject(topic)


def topic_name_fault(topic: str) -> str | None:
    """Return why a text has not the form of a topic, which is that of Kafka, or None."""
    if _TOPIC(topic) and len(topic) <= MAX_TOPIC:
        return None
    if found := _NOT_IN_TOPICS(topic):
        character = f"{found[0]!a} (U+{ord(found[0]):04X})"
        return f"has the character {character}: a topic takes A-Z a-z 0-9 . _ - only"
    if len(topic) > MAX_TOPIC:
        return f"has {len(topic)} characters, over the limit of {MAX_TOPIC} for a topic"
    return "has an empty part: a topic is one or more parts with a dot between them"


_RESERVED: Final = re.compile(r"\$|_INBOX|_R_|_GR_").match
"""The API of a NATS server; the requests of its clients, of other accounts and of gateways."""


def reserved_subject(topic: str) -> str | None:
    """Return why a topic is a subject that NATS uses itself, or None if it is none."""
    if found := _RESERVED(topic):
        return (
            f"begins with {found[0]!r}, which NATS uses itself: a message there would be a "
            "request to the server, or the answer to a request of another client"
        )
    return None


_SHOWN: Final = 40
"""The number of characters of an invalid header name that an error shows."""

_NO_TOKEN: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]").search


def broken_header(headers: Mapping[str, str]) -> str | None:
    """Return why a header name is not valid, or None if all names are valid.

    A name must be a token of RFC 9110, section 5.6.2, as HTTP and NATS require.
    """
    return broken_names(tuple(headers))


@lru_cache(maxsize=256)  # nearly all messages have the same names
def broken_names(names: tuple[str, ...]) -> str | None:
    """Return why one of several names of headers is not valid, or None."""
    if "" not in names and _NO_TOKEN("".join(names)) is None:
        return None
    name = next(name for name in names if not name or _NO_TOKEN(name))
    shown = ascii(name[:_SHOWN])
    return f"header name {shown} is no token: letters, digits and !#$%&'*+-.^_`|~ only"


def subject_key(entity_type: str, entity_id: str) -> str:
    """Return ``TYPE/ID``, as a consumer's tables have it: ``User/ann@example.com``.

    Two entities never have the same key, and a key has one line. So ``%``, characters that are
    not printable, and ``/`` in a type are percent-encoded as UTF-8.
    """
    return f"{_type(entity_type)}/{entity_id if _PLAIN_ID(entity_id) else _readable(entity_id)}"


def subject_keys(types: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Return the keys of several entities, as `subject_key` does."""
    if len({*types}) == 1 and _PLAIN_ID("".join(ids)):
        return list(map(f"{_type(types[0])}/".__add__, ids))
    return list(map(subject_key, types, ids))


@lru_cache(maxsize=256)
def _type(entity_type: str) -> str:
    return entity_type if _PLAIN_TYPE(entity_type) else _readable(entity_type, "%/")


def _readable(part: str, encoded: str = "%") -> str:
    return "".join(
        quote(each, safe="") if each in encoded or not each.isprintable() else each for each in part
    )


def listed_key(entity_type: str, entity_id: str) -> str:
    """Return ``TYPE/ID`` for a list with other marks, such as ``Loan/L%201@1,Car/C@1``.

    Each part has only the unreserved characters of RFC 3986, so the marks are found.
    """
    return f"{_listed_type(entity_type)}/{_listed(entity_id)}"


def _listed(part: str) -> str:
    # The test saves a call of `quote`; nearly every part matches.
    return part if _UNRESERVED(part) else quote(part, safe="")


@lru_cache(maxsize=256)
def _listed_type(entity_type: str) -> str:
    return _listed(entity_type)


def parse_subject_key(key: str) -> tuple[str, str]:
    """Return the type and the id of a `subject_key`, decoded.

    Characters that need no encoding may be encoded or not. Raises `SettingsError` if the
    type or the id is missing, or is not UTF-8.
    """
    entity_type, _, entity_id = key.partition("/")
    if not entity_type or not entity_id:
        raise SettingsError(f"{key!r} is no TYPE/ID, as in Loan/LOAN-7")
    try:
        return unquote(entity_type, errors="strict"), unquote(entity_id, errors="strict")
    except UnicodeDecodeError:
        raise SettingsError(f"{key!r} is no TYPE/ID: a percent-encoded part is no UTF-8") from None
