"""Move outbox rows to a broker: in order per subject, at least once.

- `publisher` runs the relay; `settings` are its settings. `topic_settings` has those of some
  topics, and `FailureRules`: what follows a failure, and when.
- `relay/` reads rows, sends them, and settles the broker's answers.
- `leases/` decides which publisher relays which shard (docs/relay.md).
- `message_map` calls the map, a function of the user that makes what the broker gets.
- `supervision` runs it in the background, `doorbell` wakes it when a writer rings, and
  `first_errors` logs the first error of each kind.
- `tuned_settings` has the numbers that no user sets, and `form_proofs` the statements by
  which `doctor` asks in which form a database takes those of the publisher.
- `sinks/` is the port to a broker, with the sinks that need none. The brokers themselves are the
  room `dsql_outbox.brokers`, and the tools of an operator `dsql_outbox.operations`.
"""

from dsql_outbox.publisher.relay.applier import Apply

from .message_map import MapFailed, MessageMap, Refuse, WireForm
from .publisher import Publisher
from .settings import PublisherSettings
from .sinks import (
    TOMBSTONE,
    Answer,
    Deferred,
    Delivered,
    Destination,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    Unavailable,
    open_sink,
)
from .topic_settings import TopicSettings

__all__ = [
    "TOMBSTONE",
    "Answer",
    "Apply",
    "Deferred",
    "Delivered",
    "Destination",
    "MapFailed",
    "MessageMap",
    "NotAttempted",
    "Outcome",
    "Publisher",
    "PublisherSettings",
    "Refuse",
    "Rejected",
    "Retry",
    "Sink",
    "TopicSettings",
    "Unavailable",
    "WireForm",
    "open_sink",
]
