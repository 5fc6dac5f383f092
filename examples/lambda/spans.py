"""Traces of a function that is frozen when it has answered: sent before that, by no thread.

The SDK's own batch processor sends from a thread, which a freeze stops in the
middle. This one keeps the spans of an invocation and sends them when it is told.
A tracer provider that is set already, as by the layer of AWS Distro for
OpenTelemetry, is used as it is.
"""

import logging
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.trace import ProxyTracerProvider, Span, SpanKind, StatusCode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

LONGEST = 1.0
"""Seconds that the answer waits for a collector, if the invocation has as many left."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

logger = logging.getLogger("dsql_outbox.lambda")


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def ended(self, status: int) -> None:
        """The request has its answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)


def set_up() -> None:
    """Record spans if an OTLP endpoint is named, and nobody else does."""
    if any(os.environ.get(name) for name in ENDPOINTS) and isinstance(
        trace.get_tracer_provider(), ProxyTracerProvider
    ):
        trace.set_tracer_provider(_provider())


@contextmanager
def request(
    method: str, route: str | None, headers: Mapping[str, str] | None
) -> Generator[RequestSpan]:
    """A span for a request, in the trace of its sender; `route` is None for an unknown path."""
    known = trace.get_current_span().get_span_context().is_valid
    parent = None if known else propagate.extract(headers or {})
    attributes = {"http.request.method": method} | ({"http.route": route} if route else {})
    name = f"{method} {route}" if route else method
    with trace.get_tracer("dsql_outbox.lambda").start_as_current_span(
        name, parent, SpanKind.SERVER, attributes, record_exception=False
    ) as span:
        yield RequestSpan(span)


def flush(seconds: float) -> None:
    """Send what has ended, if there are seconds left; else it waits for the next request."""
    provider: Any = trace.get_tracer_provider()
    if seconds <= 0 or not hasattr(provider, "force_flush"):
        return
    try:
        provider.force_flush(int(min(seconds, LONGEST) * 1000))
    except Exception as error:  # noqa: BLE001 - the answer is worth more than its trace
        logger.warning("spans are lost: %s", type(error).__name__)


def _provider() -> "TracerProvider":
    from at_return import AtReturn  # noqa: PLC0415 - the SDK takes 200 ms to import
    from opentelemetry.sdk.resources import (  # noqa: PLC0415
        SERVICE_NAME,
        OTELResourceDetector,
        Resource,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "dsql-outbox-lambda")
    found = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME goes before
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name, **found}), shutdown_on_exit=False
    )
    provider.add_span_processor(AtReturn())
    return provider
