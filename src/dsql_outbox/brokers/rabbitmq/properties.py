"""The properties of AMQP that a map may set. No I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from dsql_outbox.outbox.settings import is_unicode
from dsql_outbox.publisher.sinks.port import Properties

from .url import SHORT

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_MILLISECONDS: Final = 2**32 - 1
_MOST_PRIORITY: Final = 255


class RabbitMqProperties(Properties, frozen=True, kw_only=True):
    """Properties of a message for RabbitMQ, which a map sets by ``WireForm(.., properties=..)``.

    A message that is not consumed within `expiration` is dropped by its queue, or goes to the
    dead letter exchange of it.
    """

    type: str | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    timestamp: datetime | None = None
    expiration: timedelta | None = None
    priority: int | None = None

    def fault(self) -> str | None:
        """Why RabbitMQ would not take them, or None."""
        given = msgspec.structs.asdict(self)  # a user may ignore the types
        for name in ("type", "correlation_id", "app_id"):
            text = given[name]
            if text is not None and not (isinstance(text, str) and _is_short(text)):
                return f"{name} must be a str of 1 to {SHORT} bytes"
        at, after, level = given["timestamp"], given["expiration"], given["priority"]
        if at is not None and not (isinstance(at, datetime) and at.tzinfo and at >= _EPOCH):
            return "timestamp must be a datetime with a time zone, from 1970 on"
        if after is not None and not (
            isinstance(after, timedelta) and 0 <= _milliseconds(after) <= _MOST_MILLISECONDS
        ):
            return f"expiration must be a timedelta of 0 to {_MOST_MILLISECONDS} milliseconds"
        if level is not None and not (isinstance(level, int) and 0 <= level <= _MOST_PRIORITY):
            return f"priority must be an int of 0 to {_MOST_PRIORITY}"
        return None

    def of_amqp(self) -> dict[str, object]:
        """The same as arguments of pamqp's ``Basic.Properties``."""
        after = self.expiration
        return {
            "message_type": self.type,
            "correlation_id": self.correlation_id,
            "app_id": self.app_id,
            "timestamp": self.timestamp,
            "expiration": None if after is None else str(_milliseconds(after)),
            "priority": self.priority,
        }


def _is_short(text: str) -> bool:
    return is_unicode(text) and 0 < len(text.encode()) <= SHORT


def _milliseconds(after: timedelta) -> int:
    return after // timedelta(milliseconds=1)
