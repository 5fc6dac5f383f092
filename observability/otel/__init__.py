"""The OpenTelemetry adapters: the only modules of this room that import opentelemetry."""
