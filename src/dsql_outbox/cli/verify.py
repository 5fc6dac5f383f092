"""The command `verify`: compare the stored events with each other."""

from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime

import anyio
import click
import msgspec

from dsql_outbox.operations.verification.finding import Finding
from dsql_outbox.operations.verification.verifier import Verifier, VerifyProgress
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .exit_codes import FAILED
from .filters import archive_option, json_option, time_or_age
from .output import json_line, of_about, say
from .progress_line import progress
from .signals import READ_ONLY, interruptible


@click.command(
    short_help="Compare the stored events with each other.",
    epilog="""\b
Examples:
  dsql-outbox verify
  dsql-outbox verify --since 2d --json
  dsql-outbox verify --archive s3://shop-archive/outbox

\b
Exit codes:
  0    nothing is wrong
  1    rows are wrong: each is named on standard output
  2    wrong usage
  69   the database cannot be reached
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM)""",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=time_or_age,
    help="Read only the bytes of events saved since: a time in ISO 8601, or an age such as 2d.",
)
@archive_option
@json_option
@with_database(duty="reader", logs=True)
def verify(
    *, since: datetime | None, archive: tuple[str, ...], as_json: bool, database: Database
) -> None:
    """Compare the stored events with each other, and name each row that is wrong.

    The bytes of each event must have the fingerprint that was stored with them. The
    versions of each entity must have no gap, and the positions of each subject must rise.
    Headers, events and entities must agree, and each message in the outbox, each dead letter
    and each replay must have its event. With --archive, the files must be those that were
    written, and hold the events that their rows name.

    The command only reads, page by page, and may run beside writers and publishers. Each line
    names what is wrong, the table, and the key of the row. With --json, the last line holds
    the counts.
    """
    found = anyio.run(_verify, database, since, archive, as_json)
    if found:
        raise click.exceptions.Exit(FAILED)


async def _verify(
    database: Database, since: datetime | None, archive: Sequence[str], as_json: bool
) -> int:
    async with (
        Verifier(database) as verifier,
        aclosing(verifier.verify(since=since, archive=archive)) as run,
    ):
        with (
            interruptible(lambda: f"{_line(run.progress)}; {READ_ONLY}"),
            progress(lambda: _line(run.progress)),
        ):
            async for finding in run:
                json_line(finding) if as_json else say(_shown(finding))
    done = msgspec.structs.replace(run.progress, total=None)
    if as_json:
        json_line(done)
    else:
        say(_line(done) if done.findings else f"{_line(done)}; all agree")
    return done.findings


def _shown(finding: Finding) -> str:
    return f"{finding.fault}  {finding.table}  {finding.key}  {finding.text}"


def _line(done: VerifyProgress) -> str:
    of = of_about(done.events, done.total)
    earlier = f" ({done.skipped:,} saved earlier)" if done.skipped else ""
    parts = [
        f"events: {done.events:,}{of}{earlier}",
        *(
            f"{what}: {count:,}"
            for what, count in (
                ("headers", done.headers),
                ("entities", done.entities),
                ("messages", done.messages),
                ("dead letters", done.dead_letters),
                ("files", done.files),
                ("findings", done.findings),
            )
            if count
        ),
    ]
    return ", ".join(parts)
