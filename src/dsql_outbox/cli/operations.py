"""The command `operations`: what operators did."""

from contextlib import aclosing

import anyio
import click

from dsql_outbox.operations.operations import Operation, Operations
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .filters import json_option
from .output import aligned, json_line, one_line, say
from .signals import READ_ONLY


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=50,
    show_default=True,
    help="The largest number of lines.",
)
@json_option
@with_database(READ_ONLY, duty="reader")
def operations(*, limit: int, as_json: bool, database: Database) -> None:
    """List what operators did, the newest first: who, when, what and why.

    These commands record themselves, also if a program calls them: messages retry, drop and
    replay; topics pause and resume; targets add and drop; forget; erase; and schema
    apply with more shards. The reason is the text of their --reason.
    """
    anyio.run(_list, database, limit, as_json)


async def _list(database: Database, limit: int, as_json: bool) -> None:
    lines: list[tuple[str, ...]] = [("when", "what", "role", "user", "reason")]
    async with Operations(database) as tool, aclosing(tool.list()) as found:
        async for each in found:
            json_line(each) if as_json else lines.append(_cells(each))
            limit -= 1
            if not limit:
                break
    if not as_json:
        aligned(lines) if len(lines) > 1 else say("no operations")


def _cells(each: Operation) -> tuple[str, ...]:
    return (
        f"{each.operated_at:%Y-%m-%dT%H:%M:%SZ}",
        one_line(f"{each.verb} {each.object}".rstrip()),
        one_line(each.database_role),
        one_line(each.user_name),
        one_line(each.reason),
    )
