"""Move outbox rows to a broker: in order per subject, at least once.

- `publisher` runs the relay; `settings` are its settings, and `topic_settings` those of
  some topics.
- `session` is the connection of the operator's tools, and of rare statements of the relay.
- `relay/` reads rows, sends them, and settles the broker's answers.
- `leases/` decides which publisher relays which shard (docs/leases.md).
- `sinks/` is the port to a broker, with one module or folder per broker (docs/sinks.md).
- `read_model/` rebuilds a read model from the stored events.
- `records/` reads stored events and entities by key (`Records`), for the console.
- `operator/` is for operators and their programs: `DeadLetters`, `Failures`,
  `Waiting`, `Topics`, `Replay`, `StatusReader`, `ConflictReader` and `Health`.
"""

from dsql_outbox.publisher.operator.conflicts import (
    MAX_HOURS,
    REMEDIES,
    ConflictReader,
    ConflictReport,
    ContendedEntity,
    Remedy,
)
from dsql_outbox.publisher.operator.dead_letter_filter import DeadLetter, LetterFilter, LetterKey
from dsql_outbox.publisher.operator.dead_letters import MAX_REPLAYED, DeadLetters
from dsql_outbox.publisher.operator.event_pages import EventFilter, Place
from dsql_outbox.publisher.operator.failures import Failure, FailureFilter, FailureKey, Failures
from dsql_outbox.publisher.operator.health import Alive, Health, Ready
from dsql_outbox.publisher.operator.health_probe import DatabaseProbe, HealthProbe
from dsql_outbox.publisher.operator.pages import Page
from dsql_outbox.publisher.operator.replay import Replay, ReplayProgress
from dsql_outbox.publisher.operator.requeue import Replayed
from dsql_outbox.publisher.operator.status import (
    Bounded,
    Counters,
    FailedMessage,
    FailureCounts,
    Meter,
    Rates,
    Seen,
    Shard,
    Status,
    StatusReader,
    Stranded,
)
from dsql_outbox.publisher.operator.topic_pauses import PausedTopic, Topics
from dsql_outbox.publisher.operator.waiting_messages import (
    Waiting,
    WaitingFilter,
    WaitingMessage,
)
from dsql_outbox.publisher.rebuild import Rebuild, RebuildProgress
from dsql_outbox.publisher.records.records import (
    EntityRecord,
    EventRecord,
    Records,
    ReplayRecord,
    VersionRecord,
)
from dsql_outbox.publisher.records.sightings import (
    Death,
    Predecessor,
    Trouble,
    WaitingRecord,
    Whereabouts,
)
from dsql_outbox.publisher.relay.applier import Apply, Nowhere
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.publisher.relay.sql_store import NO_SHARD

from .publisher import Publisher
from .settings import PublisherSettings
from .sinks import (
    Answer,
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    SinkFactory,
    SinkSource,
    Unavailable,
    attributes,
    known_schemes,
    open_sink,
    sink_factory,
)
from .topic_settings import FailureRules, TopicSettings

__all__ = [
    "MAX_HOURS",
    "MAX_REPLAYED",
    "NO_SHARD",
    "REMEDIES",
    "Alive",
    "Answer",
    "Apply",
    "Bounded",
    "ConflictReader",
    "ConflictReport",
    "ContendedEntity",
    "Counters",
    "DatabaseProbe",
    "DeadLetter",
    "DeadLetters",
    "Death",
    "Delivered",
    "EntityRecord",
    "EventFilter",
    "EventRecord",
    "FailedMessage",
    "Failure",
    "FailureCounts",
    "FailureFilter",
    "FailureKey",
    "FailureRules",
    "Failures",
    "Health",
    "HealthProbe",
    "LetterFilter",
    "LetterKey",
    "Meter",
    "NotAttempted",
    "Nowhere",
    "Outcome",
    "Page",
    "PausedTopic",
    "Place",
    "Predecessor",
    "Publisher",
    "PublisherSettings",
    "Rates",
    "Ready",
    "Rebuild",
    "RebuildProgress",
    "Records",
    "Rejected",
    "Relayed",
    "Remedy",
    "Replay",
    "ReplayProgress",
    "ReplayRecord",
    "Replayed",
    "Retry",
    "Seen",
    "Shard",
    "Sink",
    "SinkFactory",
    "SinkSource",
    "Status",
    "StatusReader",
    "Stranded",
    "TopicSettings",
    "Topics",
    "Trouble",
    "Unavailable",
    "VersionRecord",
    "Waiting",
    "WaitingFilter",
    "WaitingMessage",
    "WaitingRecord",
    "Whereabouts",
    "attributes",
    "known_schemes",
    "open_sink",
    "sink_factory",
]
