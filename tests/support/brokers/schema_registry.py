"""A schema registry that answers what Confluent's client asks for Avro."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.support.stand_ins import StandIn


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    schemas: list[str]
    """The schemas; the id of one is its index + 7, so that no other number passes for it."""

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if sent["schema"] not in self.schemas:
            self.schemas.append(sent["schema"])
        self._answer(200, {"id": self.schemas.index(sent["schema"]) + 7})

    def do_GET(self) -> None:
        kind, *rest = urlsplit(self.path).path.strip("/").split("/")
        if kind == "schemas":
            self._answer(200, {"schema": self.schemas[int(rest[1]) - 7]})
        else:  # no rules and no associations
            self._answer(404, {"error_code": 40401, "message": "not found"})

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        """Write nothing."""


@contextmanager
def schema_registry() -> Generator[str]:
    """A registry without schemas, by its URL."""
    handler = type("_Handler", (_Handler,), {"schemas": []})
    with StandIn(handler).serving() as server:
        yield f"http://127.0.0.1:{server.server_port}"
