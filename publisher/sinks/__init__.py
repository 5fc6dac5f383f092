"""The port to a broker, and the sinks that implement it.

- `port` is the contract: `Sink`, and the outcomes of a message.
- `registry` opens the sink of a URL; `url` parses the common parts of such URLs.
- `cloudevents` turns the attributes of a message into headers, by the CloudEvents rules.
- `nats`, `kafka`, `sqs`, `jsonl` and `stdout` are one sink each; `json_lines` is
  the part that the last two share.

Another package adds a sink by an entry point of the group ``dsql_outbox.sinks``,
named after the scheme of its URLs (docs/sinks.md).
"""

from .cloudevents import attributes, binary_headers, decode_value, encode_value
from .port import (
    Answer,
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    Unavailable,
    WrongAnswer,
)
from .registry import SINK_GROUP, SinkOpener, open_sink

__all__ = [
    "SINK_GROUP",
    "Answer",
    "Delivered",
    "NotAttempted",
    "Outcome",
    "Rejected",
    "Retry",
    "Sink",
    "SinkOpener",
    "Unavailable",
    "WrongAnswer",
    "attributes",
    "binary_headers",
    "decode_value",
    "encode_value",
    "open_sink",
]
