"""``status --watch``: the status at regular intervals, with rates."""

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
import psycopg

from dsql_outbox.cli.output import json_line, say
from dsql_outbox.cli.signals import READ_ONLY
from dsql_outbox.observability.shown_text import visible
from dsql_outbox.operations.attention import attention, verdict
from dsql_outbox.operations.status import Meter, Rates, Status, StatusReader
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.failure import is_unreachable
from dsql_outbox.outbox.redaction import error_line

from .tables import count_of, paused_count, tables_of, text_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_LONGEST: Final = 5.0  # seconds that one reading may take
_UNKNOWN: Final = "unknown"


class Look(msgspec.Struct, frozen=True, rename="camel"):
    """One reading. `rates` is None if unknown, `status` if the database cannot be reached.

    `breaker` is ``open`` if a publisher that owns shards waits for its broker, or
    no longer announces itself because it stops; else
    ``closed``, or ``unknown`` if no publisher owns a shard.
    """

    at: str
    unreachable: str | None = None
    rates: Rates | None = None
    breaker: str = _UNKNOWN
    status: Status | None = None


def watch(database: Database, interval: float, *, as_json: bool) -> None:
    """Show the status every `interval` seconds until Ctrl-C, SIGTERM or SIGHUP.

    Raises `SchemaError` if the tables are missing, and the driver's errors. When the database
    cannot be reached, it shows that and continues.
    """
    meter = Meter()
    with suppress(KeyboardInterrupt), _display(as_json=as_json) as show:
        while True:
            began = monotonic()
            show(asyncio.run(_look(database, meter)))
            sleep(max(0.0, began + interval - monotonic()))
    say(f"stopped: {READ_ONLY}", err=True)


async def _look(database: Database, meter: Meter) -> Look:
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        with anyio.fail_after(_LONGEST):
            async with StatusReader(database) as reader:
                status, counters = await reader.read(), await reader.read_counters()
    except TimeoutError:
        return Look(at, unreachable=f"no answer within {_LONGEST:g} s")
    except psycopg.Error as error:
        if not is_unreachable(error):
            raise
        return Look(at, unreachable=error_line(error))
    rates = meter.rates(counters, monotonic())
    return Look(at, rates=rates, breaker=_breaker(status), status=status)


def _breaker(now: Status) -> str:
    """Derive the breaker's state from the tables.

    A publisher that cannot reach its broker announces immediately that it waits, but
    keeps its leases for a while. So an owner that waits, or that is not announced, means open.
    """
    owners = {s.owner for s in now.shards if s.owner is not None and (s.lease_seconds or 0) > 0}
    if not owners:
        return _UNKNOWN
    able = {seen.owner for seen in now.publishers if seen.waiting_seconds is None}
    return "closed" if owners <= able else "open"


@contextmanager
def _display(*, as_json: bool) -> Generator[Callable[[Look], None]]:
    if as_json:
        yield json_line
    elif not sys.stdout.isatty():
        yield lambda look: say(_line(look))
    else:
        from rich.live import Live  # noqa: PLC0415 - 60 ms, for terminals only

        with Live(auto_refresh=False) as live:
            yield lambda look: live.update(_view(look), refresh=True)


def _line(look: Look) -> str:
    now = look.status
    if now is None:
        return f"at={look.at} unreachable: {look.unreachable}"
    oldest, rates = now.oldest_seconds, look.rates
    parts = {
        "at": look.at,
        "waiting": count_of(now.waiting.count, more=now.waiting.more),
        "oldest_s": "-" if oldest is None else f"{oldest:.1f}",
        "in_per_s": rates.in_per_second if rates else _UNKNOWN,
        "out_per_s": rates.out_per_second if rates else _UNKNOWN,
        "failing": count_of(now.failures.count, more=now.failures.more),
        "blocked": now.failures.blocked,
        "dead": count_of(now.dead_letters.count, more=now.dead_letters.more),
        "paused_topics": paused_count(now),
        "stranded": len(now.stranded),
        "shards": len(now.shards),
        "leased": sum((shard.lease_seconds or 0) > 0 for shard in now.shards),
        "publishers": sum(seen.relays for seen in now.publishers),
        "breaker": look.breaker,
        "attention": len(attention(now)),
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())


def _view(look: Look) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - for terminals only
    from rich.text import Text  # noqa: PLC0415 - for terminals only

    when = Text(f"{look.at}  Ctrl-C ends\n", style="dim")
    if look.status is None:
        return Group(
            when,
            Text(f"the database cannot be reached: {visible(look.unreachable or '')}", "bold red"),
        )
    rates = look.rates
    moving = (
        f"{rates.in_per_second:,.1f} rows/s in, {rates.out_per_second:,.1f} out"
        if rates
        else _UNKNOWN
    )
    more = ("rates", moving), ("breaker", look.breaker)
    first = Text(f"{visible(verdict(look.status).text)}\n", "bold")
    return Group(when, first, Text(text_of(tables_of(look.status, *more))))
