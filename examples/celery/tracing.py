"""Traces of the shop, sent by OTLP if an endpoint is named in the environment."""

import os
from typing import Any

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def send_traces(service: str) -> None:
    """Send the spans of this process, under the name of a service."""
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)


@worker_process_init.connect
def trace_worker(**_: Any) -> None:
    """Let the spans of tasks join the trace that is in the headers of their messages."""
    send_traces("shop-worker")
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
