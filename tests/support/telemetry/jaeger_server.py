"""A stand-in for Jaeger 2's query API, with the answers of `tests/data/jaeger`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.checkout import ROOT
from tests.support.stand_ins import StandIn

DATA = ROOT / "tests" / "data" / "jaeger"
REQUIRED = {"query.serviceName", "query.startTimeMin", "query.startTimeMax"}
NEEDS = b'{"error": {"httpCode": 400, "message": "query.start_time_min is required"}}'


class Jaeger:
    """Services and their spans, in OTLP's JSON; a search finds whole traces, as Jaeger's does."""

    def __init__(self, services: Mapping[str, list[dict[str, Any]]]) -> None:
        self._services = services
        self.queries: list[dict[str, str]] = []
        self.url = ""

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        if path == "/api/v3/services":
            return 200, json.dumps({"services": list(self._services)}).encode()
        if path != "/api/v3/traces" or not query.keys() >= REQUIRED:
            return 400, b"malformed"
        self.queries.append(query)
        return _traces(self.found(query["query.serviceName"], query["query.attributes"]))

    def found(self, service: str, attributes: str) -> list[dict[str, Any]]:
        """The spans of every trace in which a span of the service has these attributes."""
        wanted = json.loads(attributes)
        hits = {span["traceId"] for span in self._services[service] if wanted.items() <= tags(span)}
        return [span for trace_id in sorted(hits) for span in self.trace(trace_id)]

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of one trace."""
        every = [span for spans in self._services.values() for span in spans]
        return [span for span in every if span["traceId"] == trace_id]


class OlderJaeger(Jaeger):
    """A Jaeger before 2.19, which does not know the names of the parameters."""

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if path == "/api/v3/traces":
            return 400, NEEDS
        if path == "/":
            return 200, b'<script>const JAEGER_VERSION = {"gitVersion": "v2.13.0"};</script>'
        return super().answer(path, query)


def _traces(spans: list[dict[str, Any]]) -> tuple[int, bytes]:
    if not spans:
        return 404, (DATA / "no-traces.json").read_bytes()
    answer = json.loads((DATA / "find-traces.json").read_bytes())
    answer["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"] = spans
    return 200, json.dumps(answer).encode()


def tags(span: dict[str, Any]) -> Any:
    """The attributes that are text, as items."""
    pairs = span.get("attributes", [])
    return {p["key"]: p["value"].get("stringValue") for p in pairs}.items()


@contextmanager
def serving(jaeger: Jaeger) -> Iterator[Jaeger]:
    """Answer requests inside the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            status, body = jaeger.answer(parts.path, query)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    with StandIn(Handler).serving() as server:
        jaeger.url = f"http://127.0.0.1:{server.server_port}"
        yield jaeger
