"""What the core tells those who watch: facts, hooks, and the adapters behind them."""

from dsql_outbox.observability.otel.metrics import MetricFacts, metric_facts
from dsql_outbox.observability.otel.spans import TraceFacts, trace_facts

from . import attributes, metric_names
from .facts import (
    AttemptEnded,
    AttemptOutcome,
    BacklogAge,
    BacklogUnread,
    BatchEnded,
    Fact,
    PublishEnded,
    PublishResult,
    PublishStarted,
    RetryScheduled,
    RoundEnded,
    ShardsChanged,
    TransactionStarted,
    WriteEnded,
    WriteExhausted,
    WriteStarted,
    WriteStatus,
)
from .hooks import Hook, Scope, Scopes, emit
from .json_logs import JsonFormatter
from .log_hook import log_facts
from .visible_text import visible, visible_json

__all__ = [
    "AttemptEnded",
    "AttemptOutcome",
    "BacklogAge",
    "BacklogUnread",
    "BatchEnded",
    "Fact",
    "Hook",
    "JsonFormatter",
    "MetricFacts",
    "PublishEnded",
    "PublishResult",
    "PublishStarted",
    "RetryScheduled",
    "RoundEnded",
    "Scope",
    "Scopes",
    "ShardsChanged",
    "TraceFacts",
    "TransactionStarted",
    "WriteEnded",
    "WriteExhausted",
    "WriteStarted",
    "WriteStatus",
    "attributes",
    "emit",
    "log_facts",
    "metric_facts",
    "metric_names",
    "trace_facts",
    "visible",
    "visible_json",
]
