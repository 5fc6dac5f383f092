"""Spans and metrics of a command, as the OTEL_* variables request them.

A library uses only OpenTelemetry's API. A command is a program, so it sets up the SDK.
`otel_environment` reads the variables. `tracing` and `metering` decide whether to export, and
only then import `sdk_spans` and `sdk_metrics`, because the SDK takes 100 ms to import. `exports`
closes the exporters of both at the end of the command.
"""
