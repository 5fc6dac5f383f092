"""A run of a verb as a command: its progress, its signals, its counts, and how to go on."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import click

from dsql_outbox.operations.run import Run
from dsql_outbox.outbox.errors import MissingExtra, SchemaError, SettingsError

from .output import json_line, say, say_folded
from .progress_line import progress
from .signals import Interruption, going_on

T = TypeVar("T")


async def drive(
    run: Run[Any, T],
    line: Callable[[], str],
    *,
    as_json: bool,
    tell: Callable[[T], None] = lambda _: None,
    counts: Callable[[], object] | None = None,
    err: bool = False,
) -> None:
    """Do the work of a run. The first signal stops it in order, then Ctrl-C ends it at once.

    `line` is its progress, and its sum in the end, which `err` prints on standard error. `tell`
    prints what the run yields. With `as_json` the last line of standard output has the `counts`
    instead, by default the progress of the run. When the run fails or is stopped, they are printed
    as well, and how to go on; not if the call is wrong, or the tables are missing.

    Raises the errors of the run, and `click.exceptions.Exit` after a signal.
    """
    interruption = Interruption(run.stop)

    async def work() -> None:
        async with aclosing(run):
            async for each in run:
                tell(each)

    def sum_up(more: Mapping[str, str] | None) -> None:
        json_line(counts() if counts else run.progress) if as_json else say_folded(line(), err=err)
        if more is not None:
            say(f"not done; {going_on(more)}", err=True)

    try:
        with progress(line):
            await interruption.run(work)
    except (MissingExtra, SchemaError, SettingsError):
        raise
    except BaseException:
        sum_up(run.again)
        raise
    sum_up(run.again)
    if interruption.first is not None:
        raise click.exceptions.Exit(interruption.exit_code)
