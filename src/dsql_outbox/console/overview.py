"""The overview, as a page and as a stream of its changes."""

from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dsql_outbox.observability.shown_text import counted, duration
from dsql_outbox.operations.attention import attention, verdict
from dsql_outbox.operations.status import Seen, Shard, Status
from dsql_outbox.outbox.redaction import error_line

from .charts import charts_of, rate
from .console_state import Console, console_of
from .layout import page, render
from .sampler import Reading

_SHARDS: Final = 16
_STREAM: Final = 30.0  # seconds; the browser opens the next stream, and a shutdown waits for none


class ShardRow(msgspec.Struct, frozen=True):
    """A shard with its waiting messages; `share` is theirs among those of the fullest shard."""

    shard: Shard
    waiting: str
    share: float


class PublisherRow(msgspec.Struct, frozen=True):
    """A publisher with the number of its shards, and their share of all shards in percent."""

    publisher: Seen
    shards: int
    percent: int


async def overview(request: Request) -> Response:
    """Answer the overview."""
    await console_of(request).sampler.read()
    return page(request, "overview.html", **_values(console_of(request)))


async def live(request: Request) -> Response:
    """Answer a stream of server-sent events, each with the changed parts of the overview."""
    await console_of(request).sampler.read()
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(request), media_type="text/event-stream", headers=headers)


async def _events(request: Request) -> AsyncGenerator[str]:
    console = console_of(request)
    ends_at = monotonic() + _STREAM
    yield "retry: 1000\n\n"
    tries = console.sampler.tries
    while monotonic() < ends_at and not console.sampler.is_ending:
        tries = await console.sampler.after(tries)
        yield _change(request, tries)


def _change(request: Request, tries: int) -> str:
    """The event of a reading. All browsers get the same one, so it is made once."""
    console = console_of(request)
    wanted = request.scope.get("root_path", ""), tries
    if console.change[0] != wanted:
        lines = render(request, "overview_live.html", **_values(console)).splitlines()
        console.change = wanted, "".join(f"data: {line}\n" for line in lines) + "\n"
    return console.change[1]


def _values(console: Console) -> dict[str, Any]:
    sampler = console.sampler
    reading = sampler.latest
    assert reading is not None  # noqa: S101 - the callers have waited for it
    status = reading.status
    first, *others = (*attention(status),) or (verdict(status),)
    samples = sampler.history.samples
    return {
        "read_at": datetime.fromtimestamp(reading.at, UTC).strftime("%H:%M:%S"),
        "status": status,
        "verdict": first,
        "is_well": not attention(status),
        "attention": others,
        "problem": None if sampler.problem is None else error_line(sampler.problem),
        "waiting": f"{samples[-1].waiting:,}{'+' * samples[-1].more}",
        "oldest": "none" if status.oldest_seconds is None else duration(status.oldest_seconds),
        "written": None if reading.rates is None else rate(reading.rates.in_per_second),
        "delivered": None if reading.rates is None else rate(reading.rates.out_per_second),
        "charts": charts_of(samples),
        **_shards(reading),
        "publishers": _publishers(status),
        "counted_at": None
        if reading.counted_at is None
        else datetime.fromtimestamp(reading.counted_at, UTC).strftime("%H:%M:%S"),
        "alive": sum(each.relays for each in status.publishers),
    }


def _shards(reading: Reading) -> dict[str, Any]:
    """At most 16 shards whose messages wait, those with the oldest; the others by publisher."""
    counts, shards = reading.backlogs, reading.status.shards
    most = max((each.count for each in counts.values()), default=0) or 1
    busy = [each for each in shards if each.oldest_seconds is not None]
    oldest = sorted(busy, key=lambda each: -(each.oldest_seconds or 0))[:_SHARDS]
    idle: dict[str, list[int]] = {}
    for each in shards:
        if each.oldest_seconds is None:
            state = " (its lease has expired)" if (each.lease_seconds or 0) < 0 else ""
            idle.setdefault((each.owner or "no publisher") + state, []).append(each.shard)
    return {
        "shards": [
            ShardRow(each, f"{known.count:,}{'+' * known.more}", known.count / most)
            for each in sorted(oldest, key=lambda each: each.shard)
            if (known := counts.get(each.shard)) is not None
        ],
        "busy": len(busy),
        "idle": idle,
        "idle_count": counted(len(shards) - len(busy), "idle shard"),
    }


def _publishers(status: Status) -> list[PublisherRow]:
    owned = Counter(
        shard.owner for shard in status.shards if shard.owner and (shard.lease_seconds or 0) > 0
    )
    total = len(status.shards) or 1
    return [
        PublisherRow(each, owned[each.owner], round(100 * owned[each.owner] / total))
        for each in status.publishers
    ]
