"""Log records as JSON, one object per line.

``timestamp`` (UTC, RFC 3339), ``level``, ``logger`` and ``message`` are always
present. The keys of this library's records (`KEYS`) are present when they have a
value. Of another library's record, other extra values are left out.
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
    "events",
    "entities",
    "host",
    "reason",
    "used",
    "limit",
    "wait_s",
    "sqlstate",
    "oc_class",
    "topic",
    "result",
    "count",
    "age_s",
    "shard",
)
"""The extra keys of this library's records, in the order in which they appear."""


class JsonFormatter(logging.Formatter):
    """A `logging.Formatter` that makes one line of JSON per record."""

    def format(self, record: logging.LogRecord) -> str:
        """The JSON object without a line break; ``exception`` holds the traceback, if any."""
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
