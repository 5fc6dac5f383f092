"""Serves the metrics of a writer to Prometheus."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetricsServer(ThreadingHTTPServer):
    """Serves what `exposition` returns, on a free port."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Metrics)
        self.exposition = exposition


class _Metrics(BaseHTTPRequestHandler):
    server: MetricsServer

    def do_GET(self) -> None:
        text = self.server.exposition()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
