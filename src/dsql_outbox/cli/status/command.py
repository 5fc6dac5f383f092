"""The command `status`: its options and its output."""

import asyncio
import sys

import click

from dsql_outbox.cli.database_options import database_options, open_database
from dsql_outbox.cli.exit_codes import short_errors
from dsql_outbox.cli.missing_tables import tables_needed
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import json_line, say_all
from dsql_outbox.cli.signals import READ_ONLY, interruptible
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Status, StatusReader

from .live_view import watch
from .tables import plain, rich, tables_of


@click.command(
    epilog="""\b
Examples:
  dsql-outbox status --database postgresql://localhost/shop
  dsql-outbox status --watch --interval 5

\b
Exit codes: 0 when it could be read, 2 wrong usage, 69 the database cannot be
reached, 78 the tables are missing. With --watch 0 after Ctrl-C or SIGTERM.""",
)
@database_options
@option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON object.")
@option(
    "--watch",
    "watched",
    is_flag=True,
    show_default=False,
    help="Repeat: a live view on a terminal, else one line per look; with --json one object.",
)
@option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    metavar="SECONDS",
    help="With --watch, the time between two looks.",
)
@short_errors()
@tables_needed()
@interruptible(READ_ONLY)
def status(
    *, database: str | None, schema: str, as_json: bool, watched: bool, interval: float
) -> None:
    """Show the backlog, the failures and the publishers.

    Reads only the database, so it works without a running publisher. It is cheap
    however long the backlog is: no count goes above 1000.

    With --watch it also shows rates, from the statistics that PostgreSQL keeps.
    They are some seconds late, and unknown on Aurora DSQL. While the database
    cannot be reached, --watch says so and goes on.
    """
    with open_database(database, schema) as found:
        if watched:
            watch(found, interval, as_json=as_json)
            return
        now = asyncio.run(_read(found))
    if as_json:
        json_line(now)
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - 60 ms, for terminals only

        for table in tables_of(now):
            Console().print(rich(table), end="\n\n")
    else:
        say_all(
            line
            for n, table in enumerate(tables_of(now))
            for line in ([""] * (n > 0) + plain(table))
        )


async def _read(database: Database) -> Status:
    async with StatusReader(database) as reader:
        return await reader.read()
