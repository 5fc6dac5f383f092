"""``dsql-outbox write``: events from files and standard input into the database."""

from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

import anyio
import click

from dsql_outbox.cli.database_options import database_options, open_database
from dsql_outbox.cli.exit_codes import FAILED, short_errors
from dsql_outbox.cli.logs import LogFormat, announce, logs_on_stderr
from dsql_outbox.cli.missing_tables import tables_needed
from dsql_outbox.cli.options import log_format_option, option, verbose_option
from dsql_outbox.cli.signals import Interruption
from dsql_outbox.cli.telemetry.metering import metering
from dsql_outbox.cli.telemetry.tracing import tracing
from dsql_outbox.observability import Hook
from dsql_outbox.outbox import Database
from dsql_outbox.writer import AsyncWriter, WriterSettings

from .counts import Tally, progress_bar
from .descriptors import occupy_standard
from .inputs import Inputs
from .loader import Storing
from .reporter import Reporter

_WORKERS: Final = 4
_SERVICE: Final = "dsql-outbox-write"

_OnDuplicate = Literal["error", "return"]


@click.command(
    short_help="Store events, one or many in a transaction.",
    epilog="""\b
Example:
  dsql-outbox write events.jsonl --database postgresql://localhost/shop > receipts.jsonl

\b
Exit codes:
  0    every event is stored
  1    some are not, or an input could not be read to its end
  2    wrong usage
  78   the tables are missing: run `dsql-outbox schema apply`
  130  stopped by Ctrl-C (143: by SIGTERM)""",
)
@click.argument(
    "files",
    nargs=-1,
    metavar="[FILE|-]...",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
)
@database_options
@option(
    "--workers",
    type=click.IntRange(min=1),
    default=_WORKERS,
    help="How many transactions run at a time, each over a connection of its own.",
)
@option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    metavar="EVENTS",
    help="How many events of a worker go into one transaction, if they are at hand.",
)
@option(
    "--max-retries",
    type=click.IntRange(min=0),
    default=WriterSettings.max_retries,
    help="How often an event is tried again after a conflict.",
)
@option(
    "--max-outage",
    type=click.FloatRange(min=0),
    default=WriterSettings.max_outage,
    metavar="SECONDS",
    help="How long to go on while the database is out of reach.",
)
@option(
    "--on-duplicate",
    type=click.Choice(["error", "return"]),
    default="error",
    help="Whether an event that is stored already is a failure or gives its receipt. "
    "Another event with the id of a stored one is a failure always.",
)
@log_format_option
@verbose_option
@short_errors()
@tables_needed()
def write(  # noqa: PLR0913 - one parameter a flag
    *,
    files: tuple[str, ...],
    database: str | None,
    schema: str,
    workers: int,
    batch: int,
    max_retries: int,
    max_outage: float,
    on_duplicate: _OnDuplicate,
    log_format: LogFormat,
    verbose: bool,
) -> None:
    """Store events, each in one transaction with its outbox row, or --batch of them in one.

    Reads one event, a JSON array of events, or JSON Lines from each FILE, and
    from standard input for "-" or without a FILE. Input may be endless; every
    event is kept byte for byte.

    Prints one JSON receipt a line on standard output, and on standard error one
    JSON object a line for each event that is not stored. They come as they are
    known, not in the order of input. Events with the same subject (their first
    entity) are stored in the order of input; a failed event does not hold the
    later ones back.

    With --batch, each transaction takes what has been read by then, so slow input
    is not held back; one that fails because of single events is split. To go on
    with a load that died half way, run it again with --on-duplicate return.

    Ctrl-C stops reading and finishes what was read; a second one stops at once.
    When the database cannot be reached for longer than --max-outage, the rest
    is left unread. Both say where to go on.
    """
    occupy_standard()
    settings = WriterSettings(
        max_retries=max_retries, max_outage=max_outage, max_connections=workers
    )
    with (
        logs_on_stderr(verbose=verbose, log_format=log_format),
        open_database(database, schema) as found,
        tracing(_SERVICE),
        metering(_SERVICE) as meters,
    ):
        store = partial(_store, on_duplicate=on_duplicate, batch=batch, hooks=meters.hooks)
        code = anyio.run(store, found, settings, files)
    raise click.exceptions.Exit(code)


async def _store(  # noqa: PLR0913 - what makes up one run
    database: Database,
    settings: WriterSettings,
    files: Sequence[str],
    *,
    on_duplicate: _OnDuplicate,
    batch: int,
    hooks: Sequence[Hook],
) -> int:
    """Store all events and return the exit code; raises `SchemaError`."""
    inputs, tally = Inputs(files), Tally()
    async with AsyncWriter(database, settings, hooks=[tally, *hooks]) as writer:
        store = partial(writer.write_many, on_duplicate=on_duplicate)
        with progress_bar(tally, inputs) as above_bar:
            report = Reporter(tally, above_bar)
            storing = Storing(store, inputs, report, settings.max_connections, batch=batch)
            interruption = Interruption(storing.stop)
            await interruption.run(storing.run)
    stop_line = storing.stop_line()
    for line in filter(None, (tally.summary(), stop_line)):
        announce(line)
    if storing.schema_error is not None:
        raise storing.schema_error
    return interruption.exit_code or (FAILED if tally.failed or stop_line else 0)
