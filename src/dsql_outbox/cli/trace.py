"""The command `trace`: find the trace of one event, and print it."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import anyio
import click
import msgspec

from dsql_outbox.cli.database_options import database_options, open_database
from dsql_outbox.cli.exit_codes import Misused, Unreachable
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import json_line, one_line, say
from dsql_outbox.cli.signals import READ_ONLY, interruptible
from dsql_outbox.cli.trace_drawing import render_tree
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Records
from dsql_outbox.traces import (
    DEFAULT_JAEGER,
    OLDEST_JAEGER,
    ExportRequest,
    JaegerUnreachable,
    SpanView,
    names_event,
    page_of,
    spans_of_jaeger,
    traces_of,
    views,
)


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


_LOOKBACK: Final = timedelta(days=7)
_WIDTH: Final = 80  # columns without a terminal


class FoundTrace(msgspec.Struct, frozen=True, rename="camel"):
    """The trace of an event; `page` is its URL in Jaeger, None if the spans come from a file.

    `archive` are the place and the file of an archived event, if the database was asked.
    """

    event_id: UUID
    trace_id: str
    page: str | None
    spans: Sequence[SpanView]
    archive: tuple[str, str] | None = None


def _instant(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """A time in ISO 8601; without a zone it is in UTC."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        text = f"{value!r} is not a time such as 2026-11-24T18:00:00Z"
        raise click.BadParameter(text, ctx, param) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command(
    short_help="Draw the trace of an event.",
    epilog="""\b
Examples:
  dsql-outbox trace 887502d7-2d90-4fa1-adff-ffe5736d839b
  dsql-outbox trace 887502d7-2d90-4fa1-adff-ffe5736d839b --file spans.json

\b
Exit codes:
  0    the trace is printed
  1    there is none, or there are several
  2    wrong usage, or a file that holds something else
  69   Jaeger or the database cannot be reached""",
)
@click.argument("event_id", type=click.UUID)
@option(
    "--jaeger",
    default=DEFAULT_JAEGER,
    metavar="URL",
    help=f"The base URL of Jaeger {OLDEST_JAEGER} or newer, for its query API and its pages.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read spans from this file instead: OTLP in JSON, one request per line.",
)
@click.option(
    "--since",
    callback=_instant,
    metavar="TIME",
    help="Search spans since this time; the default is the last 7 days.",
)
@click.option("--trace-id", metavar="HEX", help="The trace to draw, if the event is in several.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all spans.")
@database_options
@interruptible(READ_ONLY)
def trace(
    *,
    event_id: UUID,
    jaeger: str,
    file: Path | None,
    since: datetime | None,
    trace_id: str | None,
    as_json: bool,
    database: str | None,
    schema: str,
) -> None:
    """Draw the trace of an event: each attempt, each wait, and each publish.

    The spans come from Jaeger, or from a file that a collector's file exporter wrote.
    Conflicts are red and show their SQLSTATE. Each wait between attempts has its own line. With
    --database, the file of an archived event is named first, also if there is no trace.
    """
    archive = None
    if database:
        with open_database(database, schema) as opened:
            archive = anyio.run(_archive_of, opened, event_id)
    if archive is not None and not as_json:
        say(f"archived in {one_line(archive[1])} of {one_line(archive[0])}")
    url = jaeger.rstrip("/")
    if file is not None:
        place, spans = str(file), _spans_of_file(file, event_id)
    else:
        since = since or datetime.now(UTC) - _LOOKBACK
        place = f"{url} since {since:%Y-%m-%d %H:%M %Z}"
        spans = _spans_of_jaeger(url, event_id, since)
    chosen = _choose(traces_of(event_id, spans), trace_id, f"of event {event_id} in {place}")
    page = None if file else page_of(url, chosen[0].trace_id)
    found = FoundTrace(event_id, chosen[0].trace_id, page, chosen, archive)
    if as_json:
        json_line(found)
    else:
        _draw(found)


async def _archive_of(database: Database, event_id: UUID) -> tuple[str, str] | None:
    """The place and the file of an archived event; None of another one."""
    async with Records(database, read_only=True) as records:
        found = await records.event(event_id)
    return None if found is None else found.archive


def _spans_of_jaeger(url: str, event_id: UUID, since: datetime) -> Iterator[SpanView]:
    try:
        yield from spans_of_jaeger(url, str(event_id), since)
    except JaegerUnreachable as error:
        raise Unreachable(str(error)) from error


def _spans_of_file(path: Path, event_id: UUID) -> Iterator[SpanView]:
    """The spans of the event's traces, found in two passes: the file may exceed the memory."""
    if not path.is_file():
        raise Misused(f"{path} is not a regular file, which can be read twice")
    wanted = {span.trace_id for span in spans_of_file(path) if names_event(span, event_id)}
    return (span for span in spans_of_file(path) if span.trace_id in wanted)


def _choose(
    traces: dict[str, list[SpanView]], trace_id: str | None, what: str
) -> Sequence[SpanView]:
    """The trace `trace_id`, or the only one. Raises `click.ClickException` for none or several."""
    if trace_id is not None:
        traces = {key: spans for key, spans in traces.items() if key == trace_id.lower()}
    if not traces:
        name = "no trace" if trace_id is None else f"no trace {trace_id}"
        raise click.ClickException(
            f"there is {name} {what}: check that it was sampled and that its spans are sent there"
        )
    if len(traces) > 1:
        ids = "".join(f"\n  {key}  {len(spans)} spans" for key, spans in traces.items())
        raise click.ClickException(
            f"there are {len(traces)} traces {what}; choose one by --trace-id:{ids}"
        )
    (spans,) = traces.values()
    return spans


def _draw(found: FoundTrace) -> None:
    from rich.console import Console  # noqa: PLC0415 - 60 ms, only for drawing

    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    say(f"event {found.event_id}")
    say(f"trace {found.trace_id}")
    console.print(render_tree(found.spans, width=console.width))
    if found.page:
        say(found.page)
