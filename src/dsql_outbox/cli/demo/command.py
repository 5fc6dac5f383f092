"""The command `demo`: its options, its servers and the order of its stages."""

import asyncio
from contextlib import ExitStack

import click

from dsql_outbox.cli.database_options import database_address
from dsql_outbox.cli.demo_extra import require_demo_extra
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.logs import quiet
from dsql_outbox.cli.output import shown_width
from dsql_outbox.cli.signals import interruptible
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.schema.migrator import apply

from .report import counting, show, show_page, trace_of
from .results import checks
from .span_tree import view_recorded
from .stages import stored_ids, write_relay_and_read_back


@click.command()
@click.option(
    "--otlp", default=None, metavar="URL", help="Also send the spans to this OTLP URL, for Jaeger."
)
@interruptible("its servers and their data are removed")
def demo(otlp: str | None) -> None:
    """Write 40 events under conflict, relay them to NATS, and check what arrived.

    The demo starts a PostgreSQL and a NATS of its own, and removes them at the end.

    Four workers write twenty events of four types, twice. First each event has an entity of
    its own. Then all workers share five cars, so that their transactions conflict. The exit
    code is 1 if an event was lost, stored twice, altered or delivered out of order.
    """
    require_demo_extra("dsql-outbox demo")
    click.echo("starting PostgreSQL and NATS")
    from rich.console import Console  # noqa: PLC0415 - slow to import, so after the first line

    from dsql_outbox.cli.telemetry.sdk_spans import memory_exporter  # noqa: PLC0415 - as above
    from dsql_outbox.servers.nats_server import NatsServer  # noqa: PLC0415 - as above

    # At most 80 columns, also on a wider terminal.
    console = Console(width=min(80, shown_width() or 80), highlight=False)
    memory = memory_exporter()
    with ExitStack() as stack:
        stack.enter_context(quiet())
        address = stack.enter_context(database_address("embedded:"))
        # Conflicts occur as on Aurora DSQL, whose only isolation level this is.
        database = Database(address, isolation="repeatable read")
        apply(database)
        broker = stack.enter_context(NatsServer()).url
        with exporting() as exports:
            record_spans(exports, "dsql-outbox-demo", endpoint=otlp, exporters=[memory])
            with counting(console) as (written, delivered):
                results = asyncio.run(
                    write_relay_and_read_back(database, broker, written, delivered)
                )
        found = checks(results, *stored_ids(database, results.ids()))
    trace = trace_of(results.most_retried(), view_recorded(memory.get_finished_spans()))
    show(console, results, found, trace)
    if otlp is not None and trace:
        show_page(console, otlp, trace, exports.lost)
    if not all(check.held for check in found):
        raise SystemExit(FAILED)
