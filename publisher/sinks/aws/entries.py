"""The entries of a request: one message each, cut into requests within the limits."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

MAX_ENTRIES: Final = 10
"""The limit of messages per request, which all three services have."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in the form that a service takes."""

    index: int
    """Which message of the call this is."""
    request: dict[str, Any]
    size: int
    """The bytes that count against the limits of the service."""


def cut(entries: Iterable[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """Cut entries into requests of at most `MAX_ENTRIES` and `max_bytes`, in the given order."""
    request: list[Entry] = []
    total = 0
    for entry in entries:
        if request and (len(request) == MAX_ENTRIES or total + entry.size > max_bytes):
            yield request
            request, total = [], 0
        request.append(entry)
        total += entry.size
    if request:
        yield request
