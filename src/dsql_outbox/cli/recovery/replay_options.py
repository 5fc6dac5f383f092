"""The options and the report of the commands that replay."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Final, TypeVar

import click

from dsql_outbox.cli.filters import json_option
from dsql_outbox.cli.output import counted, json_line, say
from dsql_outbox.publisher import Replayed

from .replay_summary import ReplaySummary

_LEFT_ALONE: Final = {
    "waiting": "they wait in the outbox",
    "missing": "they do not exist",
    "unreadable": "their headers are not valid for a message; replay these events by their ids",
}

_Command = TypeVar("_Command", bound=Callable[..., object])


def replay_options(command: _Command) -> _Command:
    """Add --reason, --rate, --dry-run, --list and --json.

    The last two are the parameters `listed` and `as_json`.
    """
    options = (
        click.option(
            "--reason", default="", metavar="TEXT", help="A text to record with each event."
        ),
        click.option(
            "--rate",
            type=click.FloatRange(min=0, min_open=True),
            metavar="N",
            help="The largest number of events per second.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Change nothing; count the events per type, topic and shard.",
        ),
        click.option("--list", "listed", is_flag=True, help="Print a line per event."),
        json_option,
    )
    for add in reversed(options):
        command = add(command)
    return command


class ReplayReport:
    """Prints the results, a line per event if `listed`, and counts them by status.

    A dry run that is not `listed` prints a summary.
    """

    def __init__(self, *, as_json: bool, listed: bool, dry_run: bool) -> None:
        self._as_json = as_json
        self._listed = listed
        self._summary = ReplaySummary() if dry_run and not listed else None
        self._counts: Counter[str] = Counter()

    @property
    def left_alone(self) -> int:
        """How many events were selected but not replayed."""
        return sum(self._counts[status] for status in _LEFT_ALONE)

    @property
    def total(self) -> int:
        """How many events were selected."""
        return self._counts.total()

    async def all(self, told: AsyncGenerator[Replayed]) -> None:
        """Print every result of `told`. Raises the errors of the replay."""
        async with aclosing(told):
            async for each in told:
                self._counts[each.status] += 1
                if self._listed:
                    self._tell(each)
                if self._summary is not None and each.status == "planned":
                    self._summary.add(each)

    @contextmanager
    def summed(self) -> Generator[None]:
        """Print the totals on standard error after the block, even if it raises."""
        try:
            yield
        finally:
            if self._summary is not None:
                self._sum_up(self._summary)
            say(str(self), err=True)

    def __str__(self) -> str:
        """The totals so far."""
        counts = self._counts
        parts = [f"{counts['replayed']:,} replayed"]
        if counts["planned"]:
            parts = [f"{counted(counts['planned'], 'event')} would be replayed"]
        for status, why in _LEFT_ALONE.items():
            if counts[status]:
                parts.append(f"{counts[status]:,} left alone: {why}")
        return "; ".join(parts)

    def _sum_up(self, summary: ReplaySummary) -> None:
        if self._as_json:
            summary.print_json({status: self._counts[status] for status in _LEFT_ALONE})
        elif self._counts["planned"]:
            summary.print()

    def _tell(self, each: Replayed) -> None:
        if self._as_json:
            json_line(each)
            return
        number = "" if each.replay is None else f" {each.replay}"
        words = {"replayed": "replay", "planned": "would be replay"}
        status = words.get(each.status, each.status) + number
        say(f"{each.event_id}  {status}  {each.subject or '-'}")
