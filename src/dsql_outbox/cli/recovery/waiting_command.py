"""The command `waiting`: list messages that wait in the outbox."""

from contextlib import aclosing

import anyio
import click

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.filters import json_option, subject_option, topic_option
from dsql_outbox.cli.output import aligned, json_line, say
from dsql_outbox.cli.signals import READ_ONLY
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Waiting, WaitingFilter, WaitingMessage


@click.command()
@subject_option("--key", "The subject, as in Loan/LOAN-7.")
@topic_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="The largest number of messages.",
)
@json_option
@with_database(READ_ONLY)
def waiting(
    *,
    subject: str | None,
    topic: str | None,
    limit: int,
    as_json: bool,
    database: Database,
) -> None:
    """List messages that wait in the outbox, shard by shard, the oldest first.

    A filter has no index: the command reads the outbox page by page, until it has
    found --limit messages. Payloads are not shown.
    """
    which = WaitingFilter(subject=subject, topic=topic)
    anyio.run(_list, database, which, limit, as_json)


async def _list(database: Database, which: WaitingFilter, limit: int, as_json: bool) -> None:
    lines: list[tuple[str, ...]] = [("event", "since", "shard", "topic", "subject")]
    count = 0
    async with Waiting(database) as tool, aclosing(tool.find(which)) as found:
        async for message in found:
            if count == limit:
                say(f"there are more: narrow the filter, or raise --limit {limit}", err=True)
                break
            count += 1
            json_line(message) if as_json else lines.append(_cells(message))
    if not as_json:
        aligned(lines) if count else say("no such message waits")


def _cells(message: WaitingMessage) -> tuple[str, ...]:
    return (
        str(message.event_id),
        message.created_at.isoformat(sep=" ", timespec="seconds"),
        str(message.shard),
        message.topic,
        f"{message.subject}@{message.subject_version}",
    )
