"""Log records as JSON, one object a line.

``timestamp`` (UTC, RFC 3339), ``level``, ``logger`` and ``message`` are always
there; the keys of our own records when they have a value, under the same names.
A record of another library is taken too, without what it may carry beside its
text.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Final

KEYS: Final = (
    "event_id",
    "attempt",
    "trace_id",
    "span_id",
    "max_retries",
    "wait_s",
    "sqlstate",
    "oc_class",
    "topic",
    "result",
    "age_s",
    "shard",
)
"""What a record of ours may carry, in the order of the line."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, for any handler."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; ``exception`` holds a traceback, if there is one."""
        line: dict[str, object] = {
            "timestamp": _rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key in KEYS:
            value = getattr(record, key, None)
            if value is not None:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
