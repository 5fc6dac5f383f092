"""A server in Jaeger's place that answers anything: one line on stderr, and bounded memory."""

import json
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from tests.support.telemetry.jaeger_server import Jaeger, serving

from dsql_outbox.cli import main
from dsql_outbox.observability import attributes as names
from dsql_outbox.traces import jaeger as search

EVENT = UUID("0198c0de-0000-7000-8000-000000000001")
OK = b"HTTP/1.1 200 OK\r\n"
SIZE = 300 << 20


def span(number: int = 1, **changes: Any) -> dict[str, Any]:
    ids = {"traceId": "a" * 32, "spanId": f"{number:016x}", "name": "outbox.write"}
    times = {"startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    return ids | times | {"attributes": [pair(names.EVENT_ID, str(EVENT))]} | changes


def pair(key: str, value: Any, kind: str = "stringValue") -> dict[str, Any]:
    return {"key": key, "value": {kind: value}}


def chain(length: int) -> list[dict[str, Any]]:
    return [span(n, parentSpanId=f"{n - 1:016x}") for n in range(length)]


def with_attribute(key: str, value: Any, kind: str = "stringValue") -> list[dict[str, Any]]:
    return [span(1), span(2, parentSpanId=f"{1:016x}", attributes=[pair(key, value, kind)])]


def drawn(*words: object) -> Any:
    return CliRunner().invoke(main, ["trace", str(EVENT), *map(str, words)])


@contextmanager
def answering(parts: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """A server that sends these bytes to each client, whatever it asks."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    client.recv(65536)
                    for part in parts():
                        client.sendall(part)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(30)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe\0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        OK + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
        OK + b"a: b\r\n" * 200 + b"\r\n",
        OK + b"content-length: 100\r\n\r\n{}",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}",
        OK + b"content-length: -1\r\n\r\n{}",
        OK + b"\r\n\xff\xfe",
        OK + b"\r\n" + b"[" * 100_000,
        OK + b'\r\n{"services": "x"}',
        OK + b'\r\n{"services": ["\\ud800"]}',
        b"HTTP/1.1 404 No\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 302 No\r\nlocation: http://[\r\n\r\n",
        b"HTTP/1.1 302 No\r\nlocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.1 302 No\r\nlocation: /\xff\r\n\r\n",
    ],
)
def test_any_bytes_are_one_line_on_stderr(answer: bytes) -> None:
    with answering(lambda: iter([answer])) as url:
        result = drawn("--jaeger", url)
    assert result.exit_code in {1, 69}
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1
    assert url in result.stderr


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"302 Found\r\nlocation: /a"])
def test_an_endless_answer_is_not_read_into_memory(status: bytes) -> None:
    def parts() -> Iterator[bytes]:
        yield b"HTTP/1.1 " + status + b"\r\n\r\n"
        for _ in range(SIZE >> 20):
            yield b" " * (1 << 20)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with answering(parts) as url:
        result = drawn("--jaeger", url)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (result.exit_code, "more than 16 MiB" in result.stderr) == (1, True)
    assert grown < SIZE >> 11  # half of it, in KiB


def test_an_answer_that_drips_ends_at_the_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_SECONDS", 0.3)

    def parts() -> Iterator[bytes]:
        yield OK + b"\r\n"
        while True:
            yield b" "

    with answering(parts) as url:
        result = drawn("--jaeger", url)
    assert (result.exit_code, "Jaeger cannot be reached" in result.stderr) == (69, True)
    assert "timed out" in result.stderr


def test_many_services_end_at_the_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ALL_SECONDS", 0.3)
    with serving(Jaeger({f"s{n}": [] for n in range(100_000)})) as jaeger:
        result = drawn("--jaeger", jaeger.url)
    assert (result.exit_code, "Jaeger cannot be reached" in result.stderr) == (69, True)


def test_the_limit_of_time_may_end_between_any_two_looks_at_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(Jaeger({f"s{n}": [] for n in range(100)})) as jaeger:
        for looks in range(1, 12):
            monkeypatch.setattr(search, "monotonic", count().__next__)
            monkeypatch.setattr(search, "_ALL_SECONDS", looks + 0.5)
            result = drawn("--jaeger", jaeger.url)
            assert (result.exit_code, "Jaeger cannot be reached" in result.stderr) == (69, True)


@pytest.mark.parametrize(
    "spans",
    [
        [span(startTimeUnixNano="9" * 400)],
        [span(startTimeUnixNano=-1)],
        [span(endTimeUnixNano=1e400)],
        with_attribute("n", "x", "intValue"),
        with_attribute("n", "9" * 5000, "intValue"),
        with_attribute("n", [], "intValue"),
        with_attribute("n", None, "intValue"),
        [span(traceId=5)],
    ],
)
def test_malformed_spans_are_one_line_on_stderr(spans: list[dict[str, Any]]) -> None:
    result = drawn_from(spans)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "did not answer as Jaeger does" in result.stderr


@pytest.mark.parametrize(
    "spans",
    [
        chain(3_000),
        with_attribute(names.ATTEMPT_WAITED, "x"),
        with_attribute(names.ATTEMPT_WAITED, 1e300, "doubleValue"),
        with_attribute(names.ATTEMPT_WAITED, -1e300, "doubleValue"),
        with_attribute(names.ATTEMPT_WAITED, "nan", "doubleValue"),
        with_attribute(names.ATTEMPT_WAITED, True, "boolValue"),
        with_attribute(names.ATTEMPT_OUTCOME, {"values": []}, "arrayValue"),
        with_attribute(names.PUBLISH_LEADS_TO, {"values": []}, "arrayValue"),
        [span(startTimeUnixNano=str(2**63 - 1), endTimeUnixNano="0")],
        [span(parentSpanId=f"{1:016x}")],
        [span(name="\x1b[2J\u202e")],
        [span(traceId="\x1b[2J/../x?y#z")],
    ],
)
def test_strange_spans_are_drawn(spans: list[dict[str, Any]]) -> None:
    result = drawn_from(spans)
    assert (result.exit_code, result.stderr) == (0, "")
    assert not {"\x1b", "\u202e"} & {*result.stdout}
    tree = [line for line in result.stdout.splitlines() if "/trace/" not in line]
    assert max(map(len, tree)) <= 80


def drawn_from(spans: list[dict[str, Any]]) -> Any:
    jaeger = Jaeger({"a": []})
    traces = {"result": {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}}
    found = {"/api/v3/services": {"services": ["a"]}, "/api/v3/traces": traces}
    jaeger.answer = lambda path, _: (200, json.dumps(found.get(path)).encode())  # type: ignore[method-assign]
    with serving(jaeger):
        return drawn("--jaeger", jaeger.url)
