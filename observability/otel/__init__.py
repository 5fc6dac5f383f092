"""The OpenTelemetry adapters: hooks that turn facts into spans and metrics.

`spans` holds the tracing hook, `metrics` the measuring hook, and `instruments`
the instruments that it uses. They use only OpenTelemetry's API; the caller's
program sets up the SDK.
"""
