"""The command `archive`: move the bytes of old events to files."""

from datetime import datetime
from typing import Final

import click

from dsql_outbox.operations.life.archive import ArchiveProgress
from dsql_outbox.operations.life.archives import Archives
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .filters import (
    before_option,
    dry_run_option,
    json_option,
    rate_option,
    reason_option,
)
from .job import drive
from .output import counted, of_about
from .tool_call import called

_KIB: Final = 1024


def _archived(done: ArchiveProgress, *, dry_run: bool) -> str:
    verb = "would be archived" if dry_run else "archived"
    kept = "" if dry_run else f" of {done.file_bytes / _KIB:,.0f} KiB"
    events = f"{counted(done.events, 'event')} of {done.bytes / _KIB:,.0f} KiB"
    of = of_about(done.read, done.total)
    return f"{events} {verb} in {counted(done.files, 'file')}{kept}, read {done.read:,}{of} events"


@click.command(
    epilog="""\b
Examples:
  dsql-outbox archive --before 90d --to s3://shop-archive/outbox --dry-run
  dsql-outbox archive --before 90d --to /srv/archive --rate 2000

\b
Exit codes:
  0    done
  1    a file cannot be written, or differs from what was written
  2    wrong usage, or the archive of another outbox
  69   the database cannot be reached
  75   another job changes stored events, or a target opens or fills: try again later
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM); run it again to continue""",
)
@before_option
@click.option(
    "--to",
    required=True,
    metavar="PLACE",
    help="The folder, or s3://BUCKET/PREFIX, to archive to.",
)
@rate_option
@reason_option
@dry_run_option
@json_option
@with_database(duty="archivist", logs=True)
def archive(
    *,
    before: datetime,
    to: str,
    rate: float | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
    database: Database,
) -> None:
    """Move the bytes of old events to files, which stay readable with --archive.

    Events that wait in the outbox, or are dead letters, stay. Each file is read back before
    the table changes. A repeat of an archived write is still a duplicate, and versions have no
    gap. One job runs at a time, and the next one removes the file that a killed job left. Without
    --rate, it rests for 15 times as long as each file took, and longer while the database is
    slower than it was before. A file is never cut for a rate.
    """

    async def run(tool: Archives) -> None:
        moved = tool.archive(before, to, reason=reason, rate=rate, dry_run=dry_run)
        await drive(moved, lambda: _archived(moved.progress, dry_run=dry_run), as_json=as_json)

    called(Archives(database), run)
