"""What the commands that replay share: options, and telling what was done."""

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
        help="At most so many events a second.",
    )(command)
    return click.option(
        "--reason", default="", metavar="TEXT", help="Recorded with each event, in outbox_replays."
    )(command)


class Telling:
    """Prints each event as it is known, and counts."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._counts: Counter[str] = Counter()

    @property
    def left_alone(self) -> int:
        """How many were asked for and not replayed."""
        return sum(self._counts[status] for status in _LEFT_ALONE)

    @property
    def total(self) -> int:
        """How many were told of."""
        return self._counts.total()

    async def all(self, told: AsyncGenerator[Replayed]) -> None:
        """Tell of all that come; raises what the replay raises."""
        async with aclosing(told):
            async for each in told:
                self._counts[each.status] += 1
                self._tell(each)

    @contextmanager
    def summed(self) -> Generator[None]:
        """At the end of the block, however it comes, tell the sums on standard error."""
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
