"""The command `forget`: remove old events for good."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from dsql_outbox.operations.life.forget import ForgetProgress
from dsql_outbox.operations.life.keep import KeepRun, Pass
from dsql_outbox.operations.life.retention import Retention

from .filters import (
    age,
    confirm,
    dry_run_option,
    json_option,
    rate_option,
    reason_option,
    time_or_age,
    yes_option,
)
from .job import drive
from .output import counted, json_line, of_about, say_folded
from .progress_line import progress
from .signals import Interruption
from .tool_call import with_tool

_QUESTION = """\
Forget all delivered events {which}, for good?
A repeat of such a write is a new event then, a stream begins with the first version that is left,
and neither a replay nor a new target gets these events."""


def _time_or_age(
    context: click.Context, parameter: click.Parameter, text: str
) -> datetime | timedelta | None:
    try:
        return age(context, parameter, text)
    except click.BadParameter:
        return time_or_age(context, parameter, text)


def _line(done: ForgetProgress, *, dry_run: bool = False) -> str:
    verb = "would be forgotten" if dry_run else "forgotten"
    kept = f", {done.kept:,} kept: a message names them" if done.kept else ""
    read = f", read {done.read:,}{of_about(done.read, done.total)} events"
    return f"{counted(done.events, 'event')} {verb}{kept}{read}"


@click.command(
    epilog="""\b
Examples:
  dsql-outbox forget --before 90d --dry-run
  dsql-outbox forget --before 90d --rate 2000 --yes
  dsql-outbox forget --before 90d --every 1h --yes

\b
Exit codes:
  0    done; with --every: ended by a signal
  2    wrong usage
  69   the database cannot be reached
  75   another job changes stored events, or a target opens or fills: try again later
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM); run it again to continue""",
)
@click.option(
    "--before",
    required=True,
    metavar="TIME",
    callback=_time_or_age,
    help="Events that were saved before this time in ISO 8601, or an age such as 90d.",
)
@click.option(
    "--every",
    metavar="AGE",
    callback=age,
    help="Do not end: do it again so long after each pass, as in 1h. --before is an age then.",
)
@rate_option
@reason_option
@dry_run_option
@json_option
@yes_option
@with_tool(Retention, duty="keeper", logs=True)
async def forget(
    tool: Retention,
    *,
    before: datetime | timedelta,
    every: timedelta | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    **asked: Any,
) -> None:
    """Remove old events for good: all that were saved before a time and delivered.

    Events that wait in the outbox for any target, or are dead letters, stay, and so does the
    current state of each entity.

    After that, a repeat of such a write is a new event, a stream begins with the first version
    that is left, and neither a replay nor a new target gets these events. Versions keep counting.

    Without --rate, it rests for 15 times as long as each transaction took.

    With --every it runs until a signal, and prints a line per pass. While the database cannot be
    reached, another job runs or a target is filled, it says so and goes on a minute later.
    """
    if every is not None and (dry_run or not isinstance(before, timedelta)):
        what = "no --dry-run" if dry_run else "an age as --before, such as 90d"
        raise click.UsageError(f"--every takes {what}")
    if every is not None and isinstance(before, timedelta):
        kept = tool.keep(before, every, **asked)
        confirm(_QUESTION.format(which=f"older than {before}, again and again"), yes=yes)
        await _keep(kept, as_json=as_json)
        return
    until = datetime.now(UTC) - before if isinstance(before, timedelta) else before
    gone = tool.forget(until, dry_run=dry_run, **asked)
    if not dry_run:
        confirm(_QUESTION.format(which=f"from before {until:%Y-%m-%d %H:%M} UTC"), yes=yes)
    await drive(gone, lambda: _line(gone.progress, dry_run=dry_run), as_json=as_json)


async def _keep(run: KeepRun, *, as_json: bool) -> None:
    """Run until a signal, and print a line per pass. Raises `click.exceptions.Exit` if at once."""
    interruption = Interruption(run.stop)

    async def work() -> None:
        async with aclosing(run):
            async for each in run:
                json_line(each) if as_json else say_folded(_told(each))

    with progress(lambda: _now(run)):
        await interruption.run(work)
    if interruption.at_once:
        raise click.exceptions.Exit(interruption.exit_code)


def _told(done: Pass) -> str:
    at = f"before {done.before:%Y-%m-%d %H:%M} UTC"
    end = "" if done.error is None else f"; not complete: {done.error}"
    return f"{at}: {_line(done.done)}{end}"


def _now(run: KeepRun) -> str:
    if run.next_at is None:
        return _line(run.progress)
    return f"the next pass begins at {run.next_at:%H:%M:%S} UTC"
