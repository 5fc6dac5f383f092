"""The headers that an event gives its message, beside those that the outbox sets."""

import re
from collections.abc import Collection, Mapping
from typing import Final, cast

from dsql_outbox.outbox.errors import InvalidEvent
from dsql_outbox.outbox.message import RESERVED_HEADERS

MAX_HEADERS: Final = 20
MAX_HEADER_VALUE: Final = 1024
"""The limit in characters."""

is_header_name: Final = re.compile("[a-z0-9]{1,20}").fullmatch
"""The naming convention of CloudEvents 1.0. Every broker takes such a name."""

_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]").search
"""Characters that CloudEvents 1.0 excludes from a text, or that a broker refuses."""

_SHOWN: Final = 40


def parse_headers(
    headers: object, *, reserved: Collection[str] = RESERVED_HEADERS
) -> dict[str, str]:
    """Check the headers of an event, none of which is `reserved`, and return a copy.

    Raises `InvalidEvent` with the path of the header. Its text does not quote a value.
    """
    if not isinstance(headers, Mapping):
        kind = type(headers).__name__
        raise InvalidEvent("headers", f'is a mapping such as {{"tenant": "acme"}}, not {kind}')
    given = cast("Mapping[object, object]", headers)
    if len(given) > MAX_HEADERS:
        raise InvalidEvent("headers", f"{len(given)} headers are over the limit of {MAX_HEADERS}")
    return {_check_name(name, reserved): _check_value(name, value) for name, value in given.items()}


def is_header_value(value: str) -> bool:
    """Whether an event may have a header with this value."""
    return 0 < len(value) <= MAX_HEADER_VALUE and not _FORBIDDEN(value)


def _check_name(name: object, reserved: Collection[str]) -> str:
    if not isinstance(name, str) or not is_header_name(name):
        shown = ascii(name)[:_SHOWN]
        raise InvalidEvent("headers", f"name {shown} must be 1 to 20 of the characters a-z 0-9")
    if name in reserved:
        raise InvalidEvent(f"headers.{name}", "is set by the outbox: choose another name")
    return name


def _check_value(name: object, value: object) -> str:
    """Return the value. Its name was checked before."""
    path = f"headers.{name}"
    if not isinstance(value, str):
        raise InvalidEvent(path, f"must be a str, not {type(value).__name__}")
    if not value:
        raise InvalidEvent(path, "must not be empty: leave the header out")
    if len(value) > MAX_HEADER_VALUE:
        rule = f"has {len(value)} characters, over the limit of {MAX_HEADER_VALUE}"
        raise InvalidEvent(path, rule)
    if found := _FORBIDDEN(value):
        raise InvalidEvent(path, f"must not hold the character U+{ord(found[0]):04X}")
    return value
