"""The relay side: outbox rows to a broker, in order per subject, at least once.

`_publisher` repeats rounds; `_round` does one; `_select` and `_cursors` decide,
without any I/O, which rows may go and where to read next; `_waves` keeps one
message of a key in flight; `_store` has the statements. `_ownership` decides
which shards are ours, also without I/O, `_beat` and `_leases` keep them
(docs/leases.md). Brokers are in sinks/.

For operators: `DeadLetters`, `Failures` and `Replay`. What they share: `_requeue`
puts messages into the outbox again, `_places` and `_pace` decide where and how
fast, `_session` is their connection.
"""

from dsql_outbox.publisher.leases.liveness import is_alive
from dsql_outbox.publisher.operator.dead_letter_filter import DeadLetter, LetterFilter
from dsql_outbox.publisher.operator.dead_letters import MAX_REPLAYED, DeadLetters
from dsql_outbox.publisher.operator.failures import Failure, FailureFilter, Failures
from dsql_outbox.publisher.operator.replay import Replay
from dsql_outbox.publisher.operator.requeue import Replayed
from dsql_outbox.publisher.relay.burial import NO_ROW, NO_SHARD
from dsql_outbox.publisher.relay.round import Round

from .publisher import Publisher
from .settings import PublisherSettings
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
    "MAX_REPLAYED",
    "NO_ROW",
    "NO_SHARD",
    "DeadLetter",
    "DeadLetters",
    "Delivered",
    "Failure",
    "FailureFilter",
    "Failures",
    "LetterFilter",
    "NotAttempted",
    "Outcome",
    "Publisher",
    "PublisherSettings",
    "Rejected",
    "Replay",
    "Replayed",
    "Retry",
    "Round",
    "Sink",
    "is_alive",
    "open_sink",
]
