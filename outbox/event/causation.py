"""What an event follows from: headers that it takes from the message that is being handled.

They are those of the extension "correlation" of CloudEvents. The function of `Inbox.once` runs in
`caused_by`, and the events that are written in it have them, unless they say something else.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

CORRELATION: Final = "correlationid"
"""The id of the first cause, such as a request: the same in all that follows from it."""

CAUSATION: Final = "causationid"
"""The id of the event that this one follows from."""

_NONE: Final[Mapping[str, str]] = {}

_cause: Final = ContextVar("cause", default=_NONE)


@contextmanager
def caused_by(event_id: str, correlation_id: str) -> Generator[None]:
    """Let events that are written in this block follow from an event."""
    token = _cause.set({CORRELATION: correlation_id, CAUSATION: event_id})
    try:
        yield
    finally:
        _cause.reset(token)


def cause() -> Mapping[str, str]:
    """The headers of an event that is written here and now."""
    return _cause.get()
