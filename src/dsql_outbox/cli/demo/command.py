"""The command `demo`: its options, its servers and the order of its stages."""

import asyncio
import sys
from contextlib import ExitStack
from shutil import get_terminal_size
from typing import Final

import click

from dsql_outbox.cli.database_options import open_bare_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.logs import quiet
from dsql_outbox.cli.signals import interruptible
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.schema.migrator import apply

from .report import counting, show, show_page, trace_of
from .results import checks
from .span_tree import view_recorded
from .stages import STREAM, stored_ids, write_relay_and_read_back

_SCHEMA: Final = "outbox_demo"
"""A schema of its own, because the demo must not relay messages of a real outbox."""

_LEFT: Final = f"events written to a --database stay there, in the schema {_SCHEMA}"


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
    # At most 80 columns, also on a wider terminal.
    width = min(80, get_terminal_size().columns) if sys.stdout.isatty() else 80
    console = Console(width=width, highlight=False)
    memory = memory_exporter()
    with ExitStack() as stack:
        stack.enter_context(quiet())
        # Conflicts occur as on Aurora DSQL, whose only isolation level this is.
        opened = open_bare_database(database, _SCHEMA, "repeatable read")
        store = stack.enter_context(opened)
        apply(store)
        is_ours = database.startswith("embedded:")
        console.print(f"database  {'PostgreSQL, embedded' if is_ours else store}")
        if (broker := sink) is None:
            from dsql_outbox.servers.nats_server import NatsServer  # noqa: PLC0415 - only without --sink

            broker = stack.enter_context(NatsServer()).url
        console.print(f"broker    NATS JetStream, {f'stream {STREAM}' if sink else 'embedded'}")
        with exporting() as exports:
            record_spans(exports, "dsql-outbox-demo", endpoint=otlp, exporters=[memory])
            with counting(console) as (written, delivered):
                results = asyncio.run(write_relay_and_read_back(store, broker, written, delivered))
        found = checks(results, *stored_ids(store, results.ids()))
    trace = trace_of(results.most_retried(), view_recorded(memory.get_finished_spans()))
    show(console, results, found, trace)
    if otlp is not None and trace:
        show_page(console, otlp, trace, exports.lost)
    if not all(check.held for check in found):
        raise SystemExit(FAILED)
