"""The command `status`: its options and its output."""

from collections.abc import Sequence
from typing import Final

import click
from msgspec import to_builtins

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.options import option
from dsql_outbox.cli.output import (
    counted,
    json_line,
    say,
    say_all,
    say_folded,
    say_wrapped,
    with_first_place,
)
from dsql_outbox.cli.signals import READ_ONLY
from dsql_outbox.cli.tool_call import called
from dsql_outbox.operations.attention import Attention, attention, verdict
from dsql_outbox.operations.status import Status, StatusReader
from dsql_outbox.outbox.database.database import Database

from .live_view import watch
from .tables import TextTable, tables_of, text_of

_ATTENTION: Final = 5


@click.command(
    epilog="""\b
Examples:
  dsql-outbox status --database postgresql://localhost/shop
  dsql-outbox status --watch --interval 5

Exit codes: 0 when the status was read, 2 wrong usage, 69 the database cannot be
reached, 78 the tables are missing. With --watch 0 after Ctrl-C or SIGTERM.""",
)
@option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON object.")
@option(
    "--watch",
    "watched",
    is_flag=True,
    show_default=False,
    help="Repeat: a live view on a terminal, else one line each time; with --json one object.",
)
@option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    metavar="SECONDS",
    help="With --watch, the time between two reads.",
)
@with_database(READ_ONLY, duty="reader")
def status(
    *,
    database: Database,
    as_json: bool,
    watched: bool,
    interval: float,
) -> None:
    """Show the backlog, the failures and the publishers.

    Reads only the database, so it works without a running publisher. It is cheap for any
    backlog: no count goes above 1000.

    With --watch it also shows rates, from the statistics that PostgreSQL keeps. They are some
    seconds late, and unknown on Aurora DSQL. While the database cannot be reached, --watch
    reports that and continues.
    """
    if watched:
        watch(database, interval, as_json=as_json)
    else:
        now = called(StatusReader(database), StatusReader.read)
        if as_json:
            json_line({"attention": [_plain(each) for each in attention(now)], **to_builtins(now)})
            return
        _attend(now)
        _show(now, tables_of(now), as_json=False)


def _plain(each: Attention) -> dict[str, str | None]:
    return {"text": each.text, "command": each.command, "error": each.error}


def _attend(now: Status) -> None:
    """Say first what needs attention, the most urgent first, each with its command."""
    for each in (*attention(now),)[:_ATTENTION] or (verdict(now),):
        say_wrapped(each.text)
        if each.error:
            say_folded(f"  {with_first_place(each.error)}")
        if each.command:
            say(f"  {each.command}")
    more = len(attention(now)) - _ATTENTION
    if more > 0:
        say(f"and {counted(more, 'thing')} more: --json lists all")
    say()


def _show(found: object, tables: Sequence[TextTable], *, as_json: bool) -> None:
    json_line(found) if as_json else say_all([text_of(tables)])
