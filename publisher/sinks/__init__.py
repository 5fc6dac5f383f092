"""The port to a broker, and the way from a URL to a sink.

Each module here is one broker. Another package adds its own by an entry point
of the group ``dsql_outbox.sinks``, named by the URL's scheme.
"""

from ._port import Delivered, NotAttempted, Outcome, Rejected, Retry, Sink

__all__ = [
    "Delivered",
    "NotAttempted",
    "Outcome",
    "Rejected",
    "Retry",
    "Sink",
]
