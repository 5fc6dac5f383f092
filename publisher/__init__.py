"""Move outbox rows to a broker: in order per subject, at least once.

- `publisher` runs the relay; `settings` are its settings, and `topic_settings` those of
  some topics.
- `session` is the connection of the operator's tools, and of rare statements of the relay.
- `relay/` reads rows, sends them, and settles the broker's answers.
- `leases/` decides which publisher relays which shard (docs/relay.md).
- `sinks/` is the port to a broker, with one module or folder per broker (docs/sinks.md).
- `records` reads stored events and entities by key (`Records`), for the console.
- `verification/` compares the stored events with each other (`Verifier`).
- `life/` archives stored events, forgets archived ones (`Archives`), and erases entities.
- `operator/` is for operators and their programs: `Messages`, `Topics`, `Targets`,
  `Operations`, `StatusReader`, `ConflictReader` and `Health`.
"""

from dsql_outbox.publisher.life.archive import ArchiveProgress, ArchiveRun
from dsql_outbox.publisher.life.archives import Archives
from dsql_outbox.publisher.life.erase import EraseProgress, EraseRun, erasure_id
from dsql_outbox.publisher.life.forget import ForgetProgress, ForgetRun
from dsql_outbox.publisher.operator.conflicts import (
    MAX_HOURS,
    REMEDIES,
    ConflictReader,
    ConflictReport,
    ContendedEntity,
)
from dsql_outbox.publisher.operator.fills import FillProgress
from dsql_outbox.publisher.operator.health import Health, Ready
from dsql_outbox.publisher.operator.health_probe import DatabaseProbe, HealthProbe
from dsql_outbox.publisher.operator.letter_groups import LetterGroup
from dsql_outbox.publisher.operator.messages import MAX_RETRIED, Messages
from dsql_outbox.publisher.operator.operations import Operation, Operations
from dsql_outbox.publisher.operator.replay import Replay, ReplayProgress
from dsql_outbox.publisher.operator.requeue import Handled
from dsql_outbox.publisher.operator.selection import STATES, Selection
from dsql_outbox.publisher.operator.status import (
    ArchiveStatus,
    Bounded,
    Counts,
    FailureCounts,
    Meter,
    Rates,
    Seen,
    Shard,
    Status,
    StatusReader,
    TargetStatus,
)
from dsql_outbox.publisher.operator.targets import Target, Targets
from dsql_outbox.publisher.operator.tool import Operator
from dsql_outbox.publisher.operator.topic_pauses import PausedTopic, Topics
from dsql_outbox.publisher.operator.undelivered import UndeliveredMessage
from dsql_outbox.publisher.records import (
    Records,
)
from dsql_outbox.publisher.relay.applier import Apply
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.publisher.verification.finding import Finding
from dsql_outbox.publisher.verification.verifier import Verifier, VerifyProgress

from .form_proofs import burial_proofs, read_proofs
from .outbox_rows import RowId, row_keys
from .publisher import Publisher
from .settings import PublisherSettings
from .sinks import (
    Answer,
    Delivered,
    Destination,
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
from .targets import TargetKind, TargetRow, named, require_target
from .topic_settings import TopicSettings

__all__ = [
    "MAX_HOURS",
    "MAX_RETRIED",
    "REMEDIES",
    "STATES",
    "Answer",
    "Apply",
    "ArchiveProgress",
    "ArchiveRun",
    "ArchiveStatus",
    "Archives",
    "Bounded",
    "ConflictReader",
    "ConflictReport",
    "ContendedEntity",
    "Counts",
    "DatabaseProbe",
    "Delivered",
    "Destination",
    "EraseProgress",
    "EraseRun",
    "FailureCounts",
    "FillProgress",
    "Finding",
    "ForgetProgress",
    "ForgetRun",
    "Handled",
    "Health",
    "HealthProbe",
    "LetterGroup",
    "Messages",
    "Meter",
    "NotAttempted",
    "Operation",
    "Operations",
    "Operator",
    "Outcome",
    "PausedTopic",
    "Publisher",
    "PublisherSettings",
    "Rates",
    "Ready",
    "Records",
    "Rejected",
    "Relayed",
    "Replay",
    "ReplayProgress",
    "Retry",
    "RowId",
    "Seen",
    "Selection",
    "Shard",
    "Sink",
    "SinkFactory",
    "SinkSource",
    "Status",
    "StatusReader",
    "Target",
    "TargetKind",
    "TargetRow",
    "TargetStatus",
    "Targets",
    "TopicSettings",
    "Topics",
    "Unavailable",
    "UndeliveredMessage",
    "Verifier",
    "VerifyProgress",
    "attributes",
    "burial_proofs",
    "erasure_id",
    "known_schemes",
    "named",
    "open_sink",
    "read_proofs",
    "require_target",
    "row_keys",
    "sink_factory",
]
