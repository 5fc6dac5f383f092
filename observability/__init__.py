"""What the core tells those who watch: facts, hooks, and the adapters behind them."""

from . import _attributes as attributes
from . import _metric_names as metric_names
from ._facts import (
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
from ._hooks import Hook, Scope, Scopes, emit
from ._json_logs import JsonFormatter
from ._logging import log_facts
from ._metrics import MetricFacts, metric_facts
from ._otel import TraceFacts, trace_facts
from ._visible import visible, visible_json

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
