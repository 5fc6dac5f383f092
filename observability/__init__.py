"""The facts that the library reports, and the adapters that log, trace and measure them.

The writer and the relay emit facts (`facts`) to hooks (`hooks`). The hooks here
are `log_hook` (with `repeated_lines`) for log lines, `otel.spans` for traces and `otel.metrics` for
metrics. `attributes` and `metric_names` define every name that they use.
`json_logs` formats log records, and `shown_text` escapes control characters. `recording` finds out
whether OpenTelemetry records at all.
The folders grafana/ and prometheus/ hold dashboards and alert rules.
"""

from dsql_outbox.observability.otel.metrics import MetricFacts
from dsql_outbox.observability.otel.spans import TraceFacts

from .facts import Fact
from .hooks import Hook, Scope
from .json_logs import JsonFormatter
from .log_hook import LogFacts

__all__ = [
    "Fact",
    "Hook",
    "JsonFormatter",
    "LogFacts",
    "MetricFacts",
    "Scope",
    "TraceFacts",
]
