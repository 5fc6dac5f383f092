"""The command `demo`: its options, its servers and the order of its stages."""

import asyncio
from contextlib import ExitStack
from importlib.util import find_spec

import click

from dsql_outbox.cli.database_options import database_address
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.logs import logs_on_stderr, quiet
from dsql_outbox.cli.output import shown_width
from dsql_outbox.cli.signals import interruptible
from dsql_outbox.cli.telemetry.exports import exporting
from dsql_outbox.cli.telemetry.tracing import record_spans
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import MissingExtra
from dsql_outbox.schema.migrator import apply

from .report import counting, show, show_page, trace_of
from .results import checks
from .span_tree import view_recorded
from .stages import sink_of, stored_ids, write_relay_and_read_back


@click.command()
@click.option(
    "--otlp", default=None, metavar="URL", help="Also send the spans to this OTLP URL, for Jaeger."
)
@click.option(
    "--keep",
    is_flag=True,
    help="Then run on, with a publisher and the console, until Ctrl-C.",
)
@interruptible("its servers and their data are removed")
def demo(*, otlp: str | None, keep: bool) -> None:
    """Write 40 events under conflict, relay them to NATS, and check what arrived.

    The demo starts a PostgreSQL and a NATS of its own, and removes them at the end. They listen
    on this machine only, and their passwords are random.

    Four workers write twenty events of four types, twice. First each event has an entity of
    its own. Then all workers share five cars, so that their transactions conflict. The exit
    code is 1 if an event was lost, stored twice, altered or delivered out of order.
    """
    _require_extra()
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
        if keep:
            from .kept import run_until_signal  # noqa: PLC0415 - for few

            with logs_on_stderr(announcing=False):
                asyncio.run(run_until_signal(database, address, sink_of(broker)))
    if not all(check.held for check in found):
        raise SystemExit(FAILED)


def _require_extra() -> None:
    """Raise `MissingExtra` unless both servers and the client of NATS are installed.

    The error names the one extra that has all of them, so that a user installs once. Raises
    `SettingsError` as `server_programs` does.
    """
    from dsql_outbox.servers.nats_server import nats_program  # noqa: PLC0415 - slow to import
    from dsql_outbox.servers.postgres_programs import server_programs  # noqa: PLC0415 - as above

    try:
        server_programs()
        nats_program()
    except MissingExtra as error:
        raise MissingExtra("demo", "dsql-outbox demo") from error
    if find_spec("nats") is None:
        raise MissingExtra("demo", "dsql-outbox demo")
