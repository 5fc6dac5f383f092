"""The command `status`: its options and its output."""

from typing import Final

import click
from msgspec import to_builtins

from dsql_outbox.cli.database_options import with_database
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

from .tables import tables_of, text_of

_ATTENTION: Final = 5


@click.command(
    epilog="""\b
Examples:
  dsql-outbox status --database postgresql://localhost/shop
  watch dsql-outbox status

Exit codes: 0 when the status was read, 2 wrong usage, 69 the database cannot be
reached, 78 the tables are missing.""",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_database(READ_ONLY, duty="reader")
def status(*, database: Database, as_json: bool) -> None:
    """Show the backlog, the failures and the publishers.

    Reads only the database, so it works without a running publisher. It is cheap for any
    backlog: no count goes above 1000.
    """
    now = called(StatusReader(database), StatusReader.read)
    if as_json:
        json_line({"attention": [_plain(each) for each in attention(now)], **to_builtins(now)})
        return
    _attend(now)
    say_all([text_of(tables_of(now))])


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
