"""The command `write`: its options, and one run of the loader."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, Literal

import anyio
import click

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.exit_codes import FAILED, UNREACHABLE
from dsql_outbox.cli.logs import LogFormat, announce
from dsql_outbox.cli.progress_line import is_live, live
from dsql_outbox.cli.signals import Interruption
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.writer.async_writer import AsyncWriter
from dsql_outbox.writer.settings import WriterSettings

from .inputs import Inputs
from .loader import Loader
from .report import Reporter, Tally

BATCH: Final = 500
"""The largest number of events per transaction. More of them store no more per second."""
_TIMEOUT: Final = 30.0
"""Seconds that a transaction and its retries take at most, unless an outage may last longer."""

_OnDuplicate = Literal["error", "return"]


@click.command(
    short_help="Store events, one or many per transaction.",
    epilog="""\b
Example:
  dsql-outbox write events.jsonl --database postgresql://localhost/shop > receipts.jsonl

\b
Exit codes:
  0    every event is stored
  1    an event is not stored, or an input could not be read to its end
  2    wrong usage
  69   the database is out of reach, accepts no writes, or refuses the login
  78   the tables are missing: run `dsql-outbox schema apply`
  130  stopped by Ctrl-C (143: by SIGTERM, 129: by SIGHUP)""",
)
@click.argument(
    "files",
    nargs=-1,
    metavar="[FILE|-]...",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
)
@click.option(
    "--max-outage",
    type=click.FloatRange(min=0),
    default=WriterSettings.max_outage,
    metavar="SECONDS",
    show_default=True,
    help="The time to keep trying while the database is out of reach.",
)
@click.option(
    "--on-duplicate",
    type=click.Choice(["error", "return"]),
    default="error",
    show_default=True,
    help="For an event that is already stored: fail, or print its receipt. "
    "A different event with the same id always fails.",
)
@with_database(duty="writer", log_flags=True)
def write(
    *,
    files: tuple[str, ...],
    database: Database,
    max_outage: float,
    on_duplicate: _OnDuplicate,
    log_format: LogFormat,
) -> None:
    """Store events in the order of input, up to 500 of them in one transaction.

    Reads JSON Lines, one event per line, from each FILE, and from standard
    input for "-" or without a FILE. Every event is stored byte for byte. The
    input may be endless. Make lines of another JSON document by `jq -c`.

    Prints one JSON receipt per line on standard output, and one JSON object per
    line on standard error for each event that is not stored, as soon as the
    result is known.

    Each transaction takes what has been read so far, so slow input is not
    delayed. If single events make a transaction fail, it is split, and a failed
    event does not hold the later ones back. To resume a load that was
    interrupted, run it again with --on-duplicate return.

    Ctrl-C stops reading and stores what was read; a second one stops immediately. If the
    database is out of reach for longer than --max-outage, the command stops reading. In both
    cases it prints where to resume.
    """
    settings = WriterSettings(
        timeout=max(_TIMEOUT, max_outage), max_outage=max_outage, max_connections=1
    )
    is_shown = is_live() and log_format == "text"
    store = partial(_store, on_duplicate=on_duplicate, is_shown=is_shown)
    raise click.exceptions.Exit(anyio.run(store, database, settings, files))


async def _store(
    database: Database,
    settings: WriterSettings,
    files: Sequence[str],
    *,
    on_duplicate: _OnDuplicate,
    is_shown: bool,
) -> int:
    """Store all events and return the exit code. Raises `SchemaError` and `MissingRight`."""
    inputs, tally = Inputs(files), Tally()
    async with AsyncWriter(database, settings) as writer:
        store = partial(writer.write_many, on_duplicate=on_duplicate)
        with _progress(tally, inputs) if is_shown else nullcontext() as print_above:
            report = Reporter(tally, print_above)
            storing = Loader(store, inputs, report, batch=BATCH)
            interruption = Interruption(storing.stop)
            await interruption.run(storing.run)
    stop_line = storing.stop_line()
    for line in filter(None, (tally.summary(), stop_line, tally.hint())):
        announce(line)
    if storing.lasting_error is not None:
        raise storing.lasting_error
    return interruption.exit_code or _code(storing, is_whole=not (tally.failed or stop_line))


def _progress(tally: Tally, inputs: Inputs) -> AbstractContextManager[Callable[[str], None]]:
    """Show the counts on a terminal. Elsewhere standard error holds one object per failure."""
    total = inputs.size()
    return live(lambda: tally.brief(inputs.bytes_read / total if total else None))


def _code(storing: Loader, *, is_whole: bool) -> int:
    """Return the exit code of a run that no signal ended."""
    if storing.is_unreachable:
        return UNREACHABLE
    return 0 if is_whole else FAILED
