"""The facts that the library reports, and the adapters that log, trace and measure them.

The writer and the relay emit facts (`facts`) to hooks (`hooks`). The hooks here
are `log_hook` (with `repeated_lines`) for log lines, `otel.spans` for traces and `otel.metrics` for
metrics. `attributes` and `metric_names` define every name that they use.
`json_logs` formats log records, and `shown_text` escapes control characters.
The folders grafana/ and prometheus/ hold dashboards and alert rules.
"""

from dsql_outbox.observability.otel.metrics import MetricFacts, metric_facts, target_metrics
from dsql_outbox.observability.otel.spans import TraceFacts, trace_facts

from . import attributes, metric_names
from .facts import (
    AttemptEnded,
    AttemptOutcome,
    BacklogAge,
    BacklogUnread,
    BatchedWrite,
    BatchEnded,
    BrokerProbed,
    ConflictsUnstored,
    DatabaseServer,
    Fact,
    LifeJobs,
    PoolCounts,
    PublishConsequence,
    PublishEnded,
    PublishResult,
    PublishStarted,
    RelayProgress,
    RetriesExhausted,
    RetryBudget,
    RetryReason,
    RetryScheduled,
    ShardsChanged,
    StuckCounts,
    TransactionEnded,
    TransactionFailure,
    TransactionStarted,
    WriteEnded,
    WriteExhausted,
    WriteStarted,
    WriteStatus,
)
from .hooks import Hook, Scope, Scopes, emit, skips_successes
from .json_logs import JsonFormatter
from .log_hook import LogFacts, log_facts
from .shown_text import duration, visible, visible_json

__all__ = [
    "AttemptEnded",
    "AttemptOutcome",
    "BacklogAge",
    "BacklogUnread",
    "BatchEnded",
    "BatchedWrite",
    "BrokerProbed",
    "ConflictsUnstored",
    "DatabaseServer",
    "Fact",
    "Hook",
    "JsonFormatter",
    "LifeJobs",
    "LogFacts",
    "MetricFacts",
    "PoolCounts",
    "PublishConsequence",
    "PublishEnded",
    "PublishResult",
    "PublishStarted",
    "RelayProgress",
    "RetriesExhausted",
    "RetryBudget",
    "RetryReason",
    "RetryScheduled",
    "Scope",
    "Scopes",
    "ShardsChanged",
    "StuckCounts",
    "TraceFacts",
    "TransactionEnded",
    "TransactionFailure",
    "TransactionStarted",
    "WriteEnded",
    "WriteExhausted",
    "WriteStarted",
    "WriteStatus",
    "attributes",
    "duration",
    "emit",
    "log_facts",
    "metric_facts",
    "metric_names",
    "skips_successes",
    "target_metrics",
    "trace_facts",
    "visible",
    "visible_json",
]
