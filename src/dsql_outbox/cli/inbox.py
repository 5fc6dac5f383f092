"""The commands of `inbox`: their options and their output."""

import re
from datetime import timedelta
from typing import Final

import click

from dsql_outbox.inbox.inbox import Inbox
from dsql_outbox.inbox.pruning import Pruned
from dsql_outbox.outbox.database.database import Database

from .database_options import with_database
from .filters import json_option
from .output import counted, json_line, say
from .progress_line import progress
from .signals import GO_ON, interruptible

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")


def _age(context: click.Context, parameter: click.Parameter, text: str) -> timedelta:
    del context, parameter
    found = _AGE.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not an age, a number and s, m, h or d, such as 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.group()
def inbox() -> None:
    """Forget old messages of a consumer's inbox."""


@inbox.command()
@click.option("--consumer", required=True, metavar="NAME", help="The name of the consumer.")
@click.option(
    "--older-than",
    required=True,
    metavar="AGE",
    callback=_age,
    help="Forget messages handled longer ago: a number and s, m, h or d, as in 30d.",
)
@json_option
@with_database(duty="consumer")
def prune(*, consumer: str, older_than: timedelta, as_json: bool, database: Database) -> None:
    """Forget the messages that a consumer handled long ago.

    A message that is delivered after it was forgotten is handled again. AGE must therefore
    exceed the time for which the broker keeps messages, including the dead letters of its
    queue, and the time for which you replay events. Each transaction deletes at most 3,000
    rows. Ctrl-C ends the command at any time; to continue, run it again.
    """
    done = _Done()
    with (
        Inbox(database, consumer) as box,
        interruptible(lambda: f"{done}; {GO_ON}"),
        progress(lambda: str(done)),
    ):
        box.prune(older_than, told=done)
    if as_json:
        read, forgotten = done.pruned.read, done.pruned.forgotten
        json_line({"consumer": consumer, "read": read, "forgotten": forgotten})
    else:
        say(f"{consumer}: {done}")


class _Done:
    """The progress of a pruning."""

    def __init__(self) -> None:
        self.pruned = Pruned()

    def __call__(self, done: Pruned) -> None:
        self.pruned = done

    def __str__(self) -> str:
        done = self.pruned
        return f"{done.forgotten:,} of {counted(done.read, 'message')} forgotten"
