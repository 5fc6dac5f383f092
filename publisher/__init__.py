"""The relay side: outbox rows to a broker, in order per subject, at least once.

`_publisher` repeats rounds; `_round` does one; `_select` and `_cursors` decide,
without any I/O, which rows may go and where to read next; `_waves` keeps one
message of a key in flight; `_store` has the statements. Brokers are in sinks/.
"""

from ._publisher import Publisher
from ._round import Round
from ._settings import PublisherSettings
from .sinks import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    open_sink,
)

__all__ = [
    "Delivered",
    "NotAttempted",
    "Outcome",
    "Publisher",
    "PublisherSettings",
    "Rejected",
    "Retry",
    "Round",
    "Sink",
    "open_sink",
]
