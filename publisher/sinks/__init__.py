"""The port to a broker, and the way from a URL to a sink.

Each module here is one broker. Another package adds its own by an entry point
of the group ``dsql_outbox.sinks``, named by the URL's scheme.
"""

from .cloudevents import attributes, binary_headers, decode_value, encode_value
from .port import Delivered, NotAttempted, Outcome, Rejected, Retry, Sink, WrongOutcomes
from .registry import SINK_GROUP, SinkOpener, open_sink

__all__ = [
    "SINK_GROUP",
    "Delivered",
    "NotAttempted",
    "Outcome",
    "Rejected",
    "Retry",
    "Sink",
    "SinkOpener",
    "WrongOutcomes",
    "attributes",
    "binary_headers",
    "decode_value",
    "encode_value",
    "open_sink",
]
