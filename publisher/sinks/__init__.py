"""The port to a broker, and the sinks that need none.

- `port` is the contract: `Sink`, and the outcomes of a message.
- `registry` opens the sink of a URL; `url` parses the common parts of such URLs.
- `kept_sink` opens the sink of a publisher, and opens it again.
- `cloudevents` turns the attributes of a message into headers, by the CloudEvents rules.
- `jsonl` and `stdout` are the sinks that need no broker, `json_lines` their common part.

Another package adds a sink by an entry point of the group ``dsql_outbox.sinks``, named
after the scheme of its URLs. The names of this package are for such sinks, too
(docs/writing-a-sink.md).
"""

from dsql_outbox.outbox.message import broken_header

from .cloudevents import attributes, binary_headers, decode_value, encode_value, text_or_base64
from .kept_sink import KeptSink, SinkFactory, SinkSource, raised_by_sink, sink_factory
from .port import (
    MAX_RUN,
    MAX_RUN_BYTES,
    TOMBSTONE,
    Answer,
    Deferred,
    Delivered,
    Destination,
    Keeping,
    NotAttempted,
    Outcome,
    Properties,
    Rejected,
    Retry,
    Sink,
    Tombstone,
    Unavailable,
    WrongAnswer,
    keeps_prefix,
)
from .registry import known_schemes, open_sink
from .url import Parameters, read_parameters, split_hosts, split_login

__all__ = [
    "MAX_RUN",
    "MAX_RUN_BYTES",
    "TOMBSTONE",
    "Answer",
    "Deferred",
    "Delivered",
    "Destination",
    "Keeping",
    "KeptSink",
    "NotAttempted",
    "Outcome",
    "Parameters",
    "Properties",
    "Rejected",
    "Retry",
    "Sink",
    "SinkFactory",
    "SinkSource",
    "Tombstone",
    "Unavailable",
    "WrongAnswer",
    "attributes",
    "binary_headers",
    "broken_header",
    "decode_value",
    "encode_value",
    "keeps_prefix",
    "known_schemes",
    "open_sink",
    "raised_by_sink",
    "read_parameters",
    "sink_factory",
    "split_hosts",
    "split_login",
    "text_or_base64",
]
