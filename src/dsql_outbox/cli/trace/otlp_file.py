"""Spans from a file in OpenTelemetry's file format, as collectors export it.

Each line is one ``ExportTraceServiceRequest`` in JSON:
https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dsql_outbox.cli.exit_codes import Misused
from dsql_outbox.traces import ExportRequest, SpanView, views


def spans_of_file(path: Path) -> Iterator[SpanView]:
    """All spans of a file, read line by line.

    Raises `Misused` if the file cannot be read or a line is not in this format.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _spans_of_line(path, number, line)
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror or error}") from error


def _spans_of_line(path: Path, number: int, line: bytes) -> Iterator[SpanView]:
    try:
        # Not strict, because OTLP in JSON writes a 64-bit number as a string.
        found = msgspec.json.decode(line, type=ExportRequest, strict=False)
        yield from views(found)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Misused(
            f"{path}, line {number}, is not an OTLP request in JSON with resourceSpans: {error}"
        ) from error
