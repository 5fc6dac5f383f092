"""Spans and metrics of a command: what the OTEL_* variables ask for, set up with the SDK."""
