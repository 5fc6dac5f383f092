"""What the core tells those who watch: facts, hooks, and the adapters behind them."""

from . import _attributes as attributes
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
    WriteEnded,
    WriteExhausted,
    WriteStarted,
    WriteStatus,
)
from ._hooks import Hook, Scope, Scopes, emit
from ._logging import log_facts
from ._otel import TraceFacts, trace_facts

__all__ = [
    "AttemptEnded",
    "AttemptOutcome",
    "BacklogAge",
    "BacklogUnread",
    "BatchEnded",
    "Fact",
    "Hook",
    "PublishEnded",
    "PublishResult",
    "PublishStarted",
    "RetryScheduled",
    "RoundEnded",
    "Scope",
    "Scopes",
    "TraceFacts",
    "WriteEnded",
    "WriteExhausted",
    "WriteStarted",
    "WriteStatus",
    "attributes",
    "emit",
    "log_facts",
    "trace_facts",
]
