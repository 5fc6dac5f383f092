"""What the commands that replay share: their options, and the report of what was done."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Final, TypeVar

import click

from dsql_outbox.cli.filters import dry_run_option, json_option
from dsql_outbox.cli.output import counted, json_line, say
from dsql_outbox.publisher import Replayed

_LEFT_ALONE: Final = {
    "waiting": "they wait in the outbox",
    "missing": "they are not there",
    "unreadable": "their headers can be no message's; replay these events by their ids",
}

_Command = TypeVar("_Command", bound=Callable[..., object])


def replay_options(command: _Command) -> _Command:
    """Add --reason, --rate, --dry-run and --json, the last as parameter `as_json`."""
    command = json_option(dry_run_option(command))
    command = click.option(
        "--rate",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="The largest number of events per second.",
    )(command)
    return click.option(
        "--reason", default="", metavar="TEXT", help="A text to record with each event."
    )(command)


class ReplayReport:
    """Prints the result per event as soon as it is known, and counts them by status."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
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
        """Print every result of `told`; raises what the replay raises."""
        async with aclosing(told):
            async for each in told:
                self._counts[each.status] += 1
                self._tell(each)

    @contextmanager
    def summed(self) -> Generator[None]:
        """Print the totals on standard error after the block, even if it raises."""
        try:
            yield
        finally:
            counts = self._counts
            parts = [f"{counts['replayed']:,} replayed"]
            if counts["planned"]:
                parts = [f"{counted(counts['planned'], 'event')} would be replayed"]
            for status, why in _LEFT_ALONE.items():
                if counts[status]:
                    parts.append(f"{counts[status]:,} left alone: {why}")
            say("; ".join(parts), err=True)

    def _tell(self, each: Replayed) -> None:
        if self._as_json:
            json_line(each)
            return
        number = "" if each.replay is None else f" {each.replay}"
        words = {"replayed": "replay", "planned": "would be replay"}
        status = words.get(each.status, each.status) + number
        say(f"{each.event_id}  {status}  {each.subject or '-'}")
