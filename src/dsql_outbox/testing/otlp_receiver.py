"""A collector for tests: it receives spans and metrics by OTLP over HTTP and keeps them."""

import gzip
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Self

from dsql_outbox.outbox.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpReceiver:
    """An OTLP/HTTP server on 127.0.0.1 that runs inside a `with` block.

    It accepts protobuf, plain or gzip, at ``/v1/traces`` and ``/v1/metrics``:
    https://opentelemetry.io/docs/specs/otlp/#otlphttp. `requests` holds the
    requests with spans (`ExportTraceServiceRequest`) and `metric_requests` those
    with metrics (`ExportMetricsServiceRequest`), both with their resource
    attributes such as ``service.name``. Entering raises `MissingExtra` without
    the extra ``[otlp]``.
    """

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.metric_requests: list[ExportMetricsServiceRequest] = []
        self._arrived = Condition()

    @property
    def endpoint(self) -> str:
        """The base URL, for OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> "list[Span]":
        """All spans received so far, in the order of arrival."""
        with self._arrived:
            return self._spans()

    @property
    def metrics(self) -> "dict[str, Metric]":
        """The last state received of each metric, by its name."""
        with self._arrived:
            return {
                metric.name: metric
                for request in self.metric_requests
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }

    def wait_for(
        self, wanted: "int | Callable[[list[Span]], bool]", timeout: float = 30.0
    ) -> "list[Span]":
        """Wait for spans, and return all that have arrived.

        `wanted` is their number, or a function that returns true for the spans
        received so far. Raises `TimeoutError` after `timeout` seconds.
        """

        def enough() -> bool:
            return wanted(self._spans()) if callable(wanted) else len(self._spans()) >= wanted

        with self._arrived:
            if not self._arrived.wait_for(enough, timeout):
                names = [span.name for span in self._spans()]
                raise TimeoutError(
                    f"the spans did not arrive within {timeout} s; received: {names}"
                )
            return self._spans()

    def __enter__(self) -> Self:
        self._traces, self._metrics = _import_messages()
        self._server = _Receiver(("127.0.0.1", 0), partial(_Handler, self._receive))
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _receive(self, path: str, body: bytes) -> bytes:
        answer: bytes
        if path == "/v1/traces":
            self._keep(self.requests, self._traces.ExportTraceServiceRequest.FromString(body))
            answer = self._traces.ExportTraceServiceResponse().SerializeToString()
        else:
            request = self._metrics.ExportMetricsServiceRequest.FromString(body)
            self._keep(self.metric_requests, request)
            answer = self._metrics.ExportMetricsServiceResponse().SerializeToString()
        return answer

    def _keep(self, kept: list[Any], request: Any) -> None:
        with self._arrived:
            kept.append(request)
            self._arrived.notify_all()

    def _spans(self) -> "list[Span]":
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def _import_messages() -> tuple[Any, Any]:
    try:
        from opentelemetry.proto.collector.metrics.v1 import (  # noqa: PLC0415 - an extra
            metrics_service_pb2,
        )
        from opentelemetry.proto.collector.trace.v1 import (  # noqa: PLC0415 - an extra
            trace_service_pb2,
        )
    except ImportError as error:
        raise MissingExtra("otlp", "receiving spans and metrics by OTLP") from error
    return trace_service_pb2, metrics_service_pb2


class _Receiver(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A process that ends, or is killed, may leave in the middle: no news on a test's stderr.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, receive: "Callable[[str, bytes], bytes]", *args: Any) -> None:
        self._receive = receive
        super().__init__(*args)  # the base class handles the request here

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path not in {"/v1/traces", "/v1/metrics"}:
            self.send_error(404)
            return
        try:
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            answer = self._receive(self.path, body)
        except Exception as error:  # noqa: BLE001 - the sender gets a 400, the server continues
            self.send_error(400, type(error).__name__)
            return
        self._reply(answer)

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: one line per request would clutter a test's output."""
