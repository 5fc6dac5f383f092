"""The command `archive`: move the bytes of old events to files, or forget archived events."""

from datetime import datetime
from typing import Final

import click

from dsql_outbox.operations.life.archive import ArchiveProgress
from dsql_outbox.operations.life.archives import Archives
from dsql_outbox.operations.life.forget import ForgetProgress
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .filters import (
    archive_option,
    confirm,
    dry_run_option,
    json_option,
    rate_option,
    reason_option,
    time_or_age,
    yes_option,
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


def _forgotten(done: ForgetProgress, *, dry_run: bool) -> str:
    verb = "would be forgotten" if dry_run else "forgotten"
    files = "" if dry_run else f", {counted(done.files, 'file')} removed or written anew"
    kept = f", {done.kept:,} kept: a message names them" if done.kept else ""
    return f"{counted(done.events, 'event')} {verb}{files}{kept}"


@click.command(
    epilog="""\b
Examples:
  dsql-outbox archive --before 90d --to s3://shop-archive/outbox --dry-run
  dsql-outbox archive --before 90d --to /srv/archive --rate 2000
  dsql-outbox archive --forget --before 3650d --archive /srv/archive --reason "10 years"

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
@click.option(
    "--before",
    required=True,
    metavar="TIME",
    callback=time_or_age,
    help="Events that were saved before this time in ISO 8601, or an age such as 90d.",
)
@click.option("--to", metavar="PLACE", help="The folder, or s3://BUCKET/PREFIX, to archive to.")
@click.option("--forget", is_flag=True, help="Remove archived events for good.")
@archive_option
@rate_option
@reason_option
@dry_run_option
@json_option
@yes_option
@with_database(duty="archivist", logs=True)
def archive(
    *,
    before: datetime,
    to: str | None,
    forget: bool,
    archive: tuple[str, ...],
    rate: float | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    database: Database,
) -> None:
    """Move the bytes of old events to files, which stay readable with --archive.

    Events that wait in the outbox, or are dead letters, stay. Each file is read back before
    the table changes. A repeat of an archived write is still a duplicate, and versions have no
    gap. One job runs at a time, and the next one removes the file that a killed job left. Without
    --rate, it rests for half as long as each file took. A file is never cut for a rate.

    With --forget, archived events are removed for good, with their rows. After that, a repeat
    of such a write is a new event, a stream begins with the first version that is left, and
    neither a replay nor a new target gets these events.
    """
    if forget and (to is not None or not archive):
        raise click.UsageError("--forget takes --archive, and no --to")
    if not forget and (to is None or (archive and not _is_from_environment("archive"))):
        raise click.UsageError("give --to PLACE; --archive is for --forget")
    if forget and not dry_run:
        confirm(f"Remove all archived events before {before:%Y-%m-%d %H:%M} UTC for good?", yes=yes)

    async def run(tool: Archives) -> None:
        if forget:
            gone = tool.forget(before, archive, reason=reason, rate=rate, dry_run=dry_run)
            await drive(gone, lambda: _forgotten(gone.progress, dry_run=dry_run), as_json=as_json)
        else:
            moved = tool.archive(before, to or "", reason=reason, rate=rate, dry_run=dry_run)
            await drive(moved, lambda: _archived(moved.progress, dry_run=dry_run), as_json=as_json)

    called(Archives(database), run)


def _is_from_environment(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.ENVIRONMENT
