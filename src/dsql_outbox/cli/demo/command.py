"""The command `demo`: its options, its servers and the order of its stages."""

import asyncio
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final

import click

from dsql_outbox.cli.database_options import open_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.logs import quiet
from dsql_outbox.cli.signals import interruptible
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply

from .report import counting, show, show_page, trace_of
from .results import Results, checks
from .span_tree import view_recorded
from .stages import TOPIC_PREFIX, read_back, stored_ids, write_and_relay
from .workload import EVENT_TYPES, SHAPES, TURNS

if TYPE_CHECKING:
    from rich.console import Console

_SCHEMA: Final = "outbox_demo"
"""A schema of its own, because the demo must not relay messages of a real outbox."""

_LEFT: Final = f"events written to a --database stay there, in the schema {_SCHEMA}"

_STREAM: Final = "OUTBOX_DEMO"


@click.command()
@click.option(
    "--database",
    default="embedded:",
    show_default=True,
    metavar="URL",
    help="Where to write events; embedded: starts a PostgreSQL.",
)
@click.option(
    "--sink", default=None, metavar="URL", help="A nats:// URL; without it the demo starts NATS."
)
@click.option(
    "--otlp", default=None, metavar="URL", help="Also send the spans to this OTLP URL, for Jaeger."
)
@interruptible(_LEFT)
def demo(database: str, sink: str | None, otlp: str | None) -> None:
    """Write 40 events under conflict, relay them to NATS, and check what arrived.

    Four workers write twenty events of four types, twice. First each event has an entity of
    its own. Then all workers share five cars, so that their transactions conflict. The exit
    code is 1 if an event was lost, stored twice, altered or delivered out of order.
    """
    from rich.console import Console  # noqa: PLC0415 - 60 ms

    from dsql_outbox.cli.telemetry.sdk_spans import memory_exporter  # noqa: PLC0415 - 100 ms

    if sink is not None and not sink.startswith(("nats://", "tls://")):
        raise click.UsageError("--sink must be nats://, because the demo reads messages back")
    console = Console(width=_width())
    memory = memory_exporter()
    results = Results()
    with ExitStack() as stack:
        stack.enter_context(quiet())
        store = stack.enter_context(_started_database(console, database))
        sink_url = stack.enter_context(_started_sink(console, sink))
        with exporting() as exports:
            record_spans(exports, "dsql-outbox-demo", endpoint=otlp, exporters=[memory])
            _run(console, store, sink_url, results)
        wanted = {written.event.id for written in results.written}
        found = checks(results, *stored_ids(store, wanted))
    trace = trace_of(results.most_retried(), view_recorded(memory.get_finished_spans()))
    show(console, results, found, trace)
    if otlp is not None and trace:
        show_page(console, otlp, trace, exports.lost)
    if not all(check.held for check in found):
        raise SystemExit(FAILED)


def _run(console: "Console", database: Database, sink_url: str, results: Results) -> None:
    total = len(SHAPES) * len(EVENT_TYPES) * TURNS
    with counting(console, total) as progress:
        asyncio.run(write_and_relay(database, sink_url, results, progress))
    wanted = {w.event.id for w in results.written}
    results.arrived.extend(asyncio.run(read_back(sink_url, _STREAM, wanted)))


def _width() -> int:
    """The columns of the report: those of a narrow terminal, else 80."""
    return min(80, get_terminal_size().columns) if sys.stdout.isatty() else 80


@contextmanager
def _started_database(console: "Console", url: str) -> Generator[Database]:
    # Conflicts occur as on Aurora DSQL, whose only isolation level this is.
    with open_database(url, _SCHEMA, "repeatable read") as database:
        apply(database)
        name = "PostgreSQL, embedded" if url.startswith("embedded:") else str(database)
        console.print(f"database  {name}", highlight=False)
        yield database


@contextmanager
def _started_sink(console: "Console", url: str | None) -> Generator[str]:
    with ExitStack() as stack:
        if url is None:
            from dsql_outbox.servers import NatsServer  # noqa: PLC0415 - only without --sink

            url = stack.enter_context(NatsServer()).url
            console.print("broker    NATS JetStream, embedded")
        else:
            console.print(f"broker    NATS JetStream, stream {_STREAM}")
        yield f"{url}{'&' if '?' in url else '?'}stream={_STREAM}&subjects={TOPIC_PREFIX}.>"
