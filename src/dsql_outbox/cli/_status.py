"""``dsql-outbox status``: what waits, what failed, and who relays."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import click
import msgspec

from ._backlog import Failures, Shard, Status, read_status
from ._database import database_options, open_database
from ._errors import short_errors
from ._options import option
from ._tables import tables_needed

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


@click.command(
    epilog="""\b
Example:
  dsql-outbox status --database postgresql://localhost/shop

\b
Exit codes: 0 when it could be read, 2 wrong usage, 78 the tables are missing.""",
)
@database_options
@option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON object.")
@short_errors()
@tables_needed()
def status(*, database: str | None, schema: str, as_json: bool) -> None:
    """Show what waits, what failed and who relays.

    Reads the database alone, so it works with no publisher running. It is cheap
    however much waits: nothing is counted above 1000.
    """
    with open_database(database, schema) as found:
        now = read_status(found)
    if as_json:
        click.echo(msgspec.json.encode(now))
    elif sys.stdout.isatty():
        _print_rich(_tables(now))
    else:
        click.echo("\n\n".join(map(_plain, _tables(now))))


class _Table(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def _tables(now: Status) -> list[_Table]:
    """The summary, then what there is to tell about single shards and messages."""
    tables = [_Table(("outbox", f"schema {now.schema}"), list(_summary(now)))]
    shards = [_shard_row(shard) for shard in now.shards if _has_news(shard)]
    if shards:
        tables.append(_Table(("shard", "oldest", "leased by", "lease ends in"), shards))
    if now.failures.worst:
        header = ("failed event", "shard", "attempts", "next try", "error")
        tables.append(_Table(header, list(_failure_rows(now.failures))))
    return tables


def _summary(now: Status) -> Iterator[tuple[str, str]]:
    waiting = _count(now.waiting.count, more=now.waiting.more)
    oldest = now.oldest_seconds
    yield "waiting", waiting if oldest is None else f"{waiting}, the oldest for {_duration(oldest)}"
    failures = _count(now.failures.count, more=now.failures.more)
    blocked = now.failures.blocked
    yield "failing", f"{failures}, {blocked} of them blocked" if blocked else failures
    yield "dead letters", _count(now.dead_letters.count, more=now.dead_letters.more)
    leased = sum(shard.owner is not None for shard in now.shards)
    yield "shards", f"{len(now.shards)}, {leased} leased"


def _has_news(shard: Shard) -> bool:
    return shard.oldest_seconds is not None or shard.owner is not None


def _shard_row(shard: Shard) -> tuple[str, ...]:
    oldest, ends = shard.oldest_seconds, shard.lease_seconds
    return (
        str(shard.shard),
        "-" if oldest is None else _duration(oldest),
        shard.owner or "-",
        "-" if ends is None else _duration(ends),
    )


def _failure_rows(failures: Failures) -> Iterator[tuple[str, ...]]:
    for found in failures.worst:
        retry = found.retry_seconds
        yield (
            str(found.event_id),
            str(found.shard),
            str(found.attempts),
            "blocked" if retry is None else f"in {_duration(retry)}",
            " ".join(found.error.split()),
        )


def _count(count: int, *, more: bool) -> str:
    return f"{count}+" if more else str(count)


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(seconds, 0.0):.1f} s"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def _plain(table: _Table) -> str:
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _print_rich(tables: Sequence[_Table]) -> None:
    from rich.console import Console  # noqa: PLC0415 - 60 ms, for terminals only
    from rich.table import Table  # noqa: PLC0415 - for terminals only
    from rich.text import Text  # noqa: PLC0415 - for terminals only

    console = Console()
    for table in tables:
        shown = Table(*table.header, box=None, pad_edge=False, header_style="bold")
        for row in table.rows:
            shown.add_row(*map(Text, row))  # as text: an error may hold what looks like markup
        console.print(shown, end="\n\n")
