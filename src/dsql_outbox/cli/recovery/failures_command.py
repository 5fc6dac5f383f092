"""The command `failures`: list, retry or give up messages that failed and block their subject."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import click

from dsql_outbox.cli.database_options import with_database
from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.filters import (
    all_option,
    dry_run_option,
    id_option,
    json_option,
    require_choice,
    subject_option,
    topic_option,
)
from dsql_outbox.cli.output import counted, json_line, one_line, say
from dsql_outbox.cli.signals import GO_ON, READ_ONLY, interruptible
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Failure, FailureFilter, Failures

_Command = TypeVar("_Command", bound=Callable[..., object])
_Work = Callable[[Failures, FailureFilter], AsyncGenerator[Failure]]


@dataclass
class _Told:
    """How many failures were printed, and how many of them are behind another message."""

    total: int = 0
    behind: int = 0


@click.group()
def failures() -> None:
    """List, retry or give up messages whose delivery failed.

    Such a message holds back the later ones of its subject. A blocked message,
    which `publish --on-dead-letter block` leaves in the outbox, waits for `retry`
    or `bury`.
    """


def _filters(command: _Command) -> _Command:
    blocked = click.option("--blocked", is_flag=True, help="Only messages that need an operator.")
    subject = subject_option("--key", "The subject, as in Loan/LOAN-7.")
    return id_option(subject(topic_option(blocked(command))))


@failures.command("list")
@_filters
@json_option
@with_database(READ_ONLY)
def list_(*, as_json: bool, database: Database, **filters: Any) -> None:
    """List failed messages, with the time of the next try and the error."""
    told = _Told()
    anyio.run(_tell, database, Failures.find, FailureFilter(**filters), as_json, told)
    if not told.total and not as_json:
        say("no failures")


@failures.command()
@_filters
@all_option
@dry_run_option
@json_option
@with_database()
def retry(**options: Any) -> None:
    """Forget the failures of messages: the publisher tries them again immediately.

    Each message has all its attempts again.
    """
    _act(Failures.retry, "will be tried again", "would be tried again", **options)


@failures.command()
@_filters
@all_option
@dry_run_option
@json_option
@with_database()
def bury(**options: Any) -> None:
    """Give up failed messages: move them to the dead letters.

    The later messages of their subjects are then relayed. A message behind another one
    of its subject, which still waits, is left alone: give up that one first.
    """
    _act(Failures.bury, "moved to the dead letters", "would be moved there", **options)


def _act(  # noqa: PLR0913 - one parameter per flag
    work: _Work,
    done: str,
    planned: str,
    *,
    every: bool,
    dry_run: bool,
    as_json: bool,
    database: Database,
    **filters: Any,
) -> None:
    which = FailureFilter(**filters)
    require_choice("all failures", filtered=which != FailureFilter(), every=every)
    told = _Told()
    verb = planned if dry_run else done
    with interruptible(lambda: f"{counted(told.total, 'message')} {verb}; {GO_ON}"):
        anyio.run(_tell, database, Failures.find if dry_run else work, which, as_json, told)
    left = told.behind if work is Failures.bury else 0
    count = told.total - left
    say(f"{counted(count, 'message')} {verb}", err=True)
    if left:
        say(f"{counted(left, 'message')} left alone: act on the message before it first", err=True)
    if left or count < len(set(which.event_ids)):
        raise click.exceptions.Exit(FAILED)


async def _tell(
    database: Database, work: _Work, which: FailureFilter, as_json: bool, told: _Told
) -> None:
    async with Failures(database) as tool, aclosing(work(tool, which)) as found:
        async for failure in found:
            told.total += 1
            told.behind += failure.behind
            json_line(failure) if as_json else say(_line(failure))


def _line(failure: Failure) -> str:
    at = failure.retry_at
    until = "blocked" if at is None else f"until {at.isoformat(sep=' ', timespec='seconds')}"
    until += ", behind another" if failure.behind else ""
    attempts = counted(failure.attempts, "attempt")
    error = one_line(failure.error)
    return "  ".join((str(failure.event_id), until, attempts, failure.subject, error))
