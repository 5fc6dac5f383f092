"""The command `forget`: remove old events for good."""

from datetime import datetime

import click

from dsql_outbox.operations.life.forget import ForgetProgress
from dsql_outbox.operations.life.retention import Retention
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .filters import (
    archive_option,
    before_option,
    confirm,
    dry_run_option,
    json_option,
    rate_option,
    reason_option,
    yes_option,
)
from .job import drive
from .output import counted, of_about
from .tool_call import called

_QUESTION = """\
Forget all delivered events from before {before:%Y-%m-%d %H:%M} UTC{places}, for good?
A repeat of such a write is a new event then, a stream begins with the first version that is left,
and neither a replay nor a new target gets these events."""


def _line(done: ForgetProgress, *, dry_run: bool) -> str:
    verb = "would be forgotten" if dry_run else "forgotten"
    files = ""
    if done.files and not dry_run:
        files = f", {counted(done.files, 'file')} removed or written anew"
    kept = f", {done.kept:,} kept: a message names them" if done.kept else ""
    read = f", read {done.read:,}{of_about(done.read, done.total)} events"
    return f"{counted(done.events, 'event')} {verb}{files}{kept}{read}"


@click.command(
    epilog="""\b
Examples:
  dsql-outbox forget --before 90d --dry-run
  dsql-outbox forget --before 90d --rate 2000 --yes
  dsql-outbox forget --before 3650d --archive /srv/archive --reason "10 years"

\b
Exit codes:
  0    done
  1    an archive file cannot be read or written
  2    wrong usage, or events are archived and no archive is named
  69   the database cannot be reached
  75   another job changes stored events, or a target opens or fills: try again later
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM); run it again to continue""",
)
@before_option
@archive_option
@rate_option
@reason_option
@dry_run_option
@json_option
@yes_option
@with_database(duty="archivist", logs=True)
def forget(
    *,
    before: datetime,
    archive: tuple[str, ...],
    rate: float | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    database: Database,
) -> None:
    """Remove old events for good: all that were saved before a time and delivered.

    Their rows are deleted, and with --archive also the lines of archived events in its files.
    Events that wait in the outbox for any target, or are dead letters, stay, and so does the
    current state of each entity.

    After that, a repeat of such a write is a new event, a stream begins with the first version
    that is left, and neither a replay nor a new target gets these events. Versions keep counting.

    Without --rate, it rests for 15 times as long as each transaction took, as `archive` does.
    """

    async def run(tool: Retention) -> None:
        gone = tool.forget(before, archive=archive, reason=reason, rate=rate, dry_run=dry_run)
        if not dry_run:
            places = f", also in {', '.join(archive)}" if archive else ""
            confirm(_QUESTION.format(before=before, places=places), yes=yes)
        await drive(gone, lambda: _line(gone.progress, dry_run=dry_run), as_json=as_json)

    called(Retention(database), run)
