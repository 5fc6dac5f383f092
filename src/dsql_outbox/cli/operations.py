"""The command `operations`: what operators did."""

import click

from dsql_outbox.operations.operations import Operation, Operations

from .filters import json_option
from .output import listed, one_line
from .signals import READ_ONLY
from .tool_call import collected, with_tool


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
@with_tool(Operations, READ_ONLY, duty="reader")
async def operations(tool: Operations, *, limit: int, as_json: bool) -> None:
    """List what operators did, the newest first: who, when, what and why.

    These commands record themselves, also if a program calls them: messages retry, drop and
    replay; topics pause and resume; targets add and drop; forget; erase; and schema
    apply with more shards. The reason is the text of their --reason.
    """
    found = await collected(tool.list(), limit)
    header = ("when", "what", "role", "user", "reason")
    listed(found, header, _cells, as_json=as_json, none="no operations")


def _cells(each: Operation) -> tuple[str, ...]:
    return (
        f"{each.operated_at:%Y-%m-%dT%H:%M:%SZ}",
        one_line(f"{each.verb} {each.object}".rstrip()),
        one_line(each.database_role),
        one_line(each.user_name),
        one_line(each.reason),
    )
