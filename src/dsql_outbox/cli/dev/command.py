"""The command `dev`: its options."""

from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Final
from uuid import uuid4

import click

from dsql_outbox.cli.demo_extra import require_demo_extra
from dsql_outbox.cli.options import option
from dsql_outbox.cli.sample_events import PAYMENT, make_event

from .dev_lines import DevLines

_CARS: Final = 5
_random: Final = SystemRandom()


def sample_events(count: int) -> Iterator[bytes]:
    """Make `count` new events as JSON, each with a random id and one of five cars."""
    for _ in range(count):
        car = str(_random.randint(1, _CARS))
        number = _random.randint(1, 500)
        yield make_event(PAYMENT, "hot", str(uuid4()), number, car=car).to_json()


@click.command(
    epilog="""\b
Examples:
  dsql-outbox dev
  dsql-outbox dev ./outbox-data

\b
Exit codes:
  0    ended by Ctrl-C, SIGTERM or SIGHUP
  1    PostgreSQL or NATS has ended, or another error
  2    wrong usage, a missing extra, or a folder that cannot be used""",
)
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@option(
    "--json",
    "as_json",
    is_flag=True,
    show_default=False,
    help="Print one JSON object per line, also for warnings on standard error.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Start nothing: print this many new events as JSON Lines, for `dsql-outbox write`. "
    "They share five cars, so concurrent writes meet conflicts.",
)
def dev(*, folder: Path | None, as_json: bool, sample: int | None) -> None:
    """Run PostgreSQL, NATS, a publisher and the console until Ctrl-C.

    Prints their URLs, a command that writes events, and then the activity. Everything listens
    on 127.0.0.1 only, and passwords are random. Ports are the same each time, unless another
    program uses them.

    Data and passwords are kept in FOLDER for the next start. Without FOLDER they are removed
    at the end. Nothing is left running, even if this process is killed.
    """
    if sample is not None:
        for event in sample_events(sample):
            click.echo(event)
        return
    require_demo_extra("dsql-outbox dev")
    lines = DevLines(as_json=as_json)
    lines.starting(folder)
    from .dev_run import run_dev  # noqa: PLC0415 - slow to import, so after the first line

    run_dev(folder, lines, "json" if as_json else "text")
