"""The content type of a payload: its form, and whether it is JSON or text; no I/O."""

import re
from functools import lru_cache
from typing import Final

JSON: Final = "application/json"
"""The content type of an event, and of a message that no map has changed."""

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_MEDIA_TYPE: Final = re.compile(
    rf"{_NAME}/{_NAME}(?: *; *{_NAME}=(?:{_NAME}|{_QUOTED}))*"
).fullmatch
"""RFC 9110, section 8.3.1, in printable ASCII: so it adds no header, whatever the broker."""

MAX_SHOWN: Final = 60
"""The number of characters of an invalid content type that an error shows."""


def content_type_fault(content_type: str) -> str | None:
    """Return why a text is no content type, or None if it is one."""
    if _MEDIA_TYPE(content_type):
        return None
    shown = ascii(content_type[:MAX_SHOWN])
    return f"content type {shown} is no media type, such as application/avro or text/plain"


@lru_cache
def is_json(content_type: str) -> bool:
    """Return whether the payload is JSON: a subtype ``json``, or one that ends in ``+json``."""
    subtype = _media_type(content_type).partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


@lru_cache
def is_text(content_type: str) -> bool:
    """Return whether the payload is text: JSON, XML, or ``text/..``. Any other one is binary."""
    kind, _, subtype = _media_type(content_type).partition("/")
    is_xml = subtype == "xml" or subtype.endswith("+xml")
    return kind == "text" or is_xml or is_json(content_type)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
