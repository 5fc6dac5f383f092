"""The commands of `inbox`: their options and their output."""

from datetime import timedelta

import click
import msgspec

from dsql_outbox.inbox.async_inbox import AsyncInbox
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .filters import age, json_option, rate_option
from .job import drive
from .output import counted
from .tool_call import called


@click.group()
def inbox() -> None:
    """Forget old messages of a consumer's inbox."""


@inbox.command()
@click.option("--consumer", required=True, metavar="NAME", help="The name of the consumer.")
@click.option(
    "--older-than",
    required=True,
    metavar="AGE",
    callback=age,
    help="Forget messages handled longer ago: a number and s, m, h or d, as in 30d.",
)
@rate_option
@json_option
@with_database(duty="consumer", logs=True)
def prune(
    *,
    consumer: str,
    older_than: timedelta,
    rate: float | None,
    as_json: bool,
    database: Database,
) -> None:
    """Forget the messages that a consumer handled long ago.

    A message that is delivered after it was forgotten is handled again. AGE must therefore
    exceed the time for which the broker keeps messages, including the dead letters of its
    queue, and the time for which you replay events. Each transaction deletes at most 3,000
    rows, and --rate limits the messages that are forgotten. Ctrl-C ends the command after the
    transaction in progress; to continue, run it again.
    """

    async def run(box: AsyncInbox) -> None:
        pruning = box.prune(older_than, rate=rate)

        def line() -> str:
            done = pruning.progress
            read = counted(done.read, "message")
            return f"{consumer}: {done.forgotten:,} of {read} forgotten"

        def counts() -> dict[str, object]:
            return {"consumer": consumer, **msgspec.structs.asdict(pruning.progress)}

        await drive(pruning, line, as_json=as_json, counts=counts)

    called(AsyncInbox(database, consumer), run)
