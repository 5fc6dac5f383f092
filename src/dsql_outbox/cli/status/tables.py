"""A status as text tables."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from dsql_outbox.cli.output import columns, filled_state, shown_width, with_first_place
from dsql_outbox.observability.shown_text import duration
from dsql_outbox.operations.attention import refusal_reason
from dsql_outbox.operations.status import JobsStatus, Seen, Shard, Status, TargetStatus
from dsql_outbox.outbox.settings import DEFAULT_TARGET

_COUNTS: Final = ("waiting", "oldest", "failing", "dead letters")
_TARGET: Final = ("target", "kind", "state", *_COUNTS)


class TextTable(NamedTuple):
    """A table of texts; each row is as long as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables_of(now: Status) -> list[TextTable]:
    """The summary, then one table per kind that has rows."""
    tables = [TextTable(("outbox", f"schema {now.schema}"), [*_summary(now)])]
    if now.targets:
        tables.append(TextTable(_TARGET, list(map(_target_row, now.targets))))
    # A user who has added no target reads nothing of targets.
    of = ("target",) if now.targets else ()
    if now.publishers:
        header = ("publisher", *of, "shards", "alive")
        tables.append(TextTable(header, [_publisher_row(now, each) for each in now.publishers]))
    if busy := [_shard_row(now, each) for each in now.shards if not _is_idle(each)]:
        header = ("shard", *of, "oldest", "leased by")
        tables.append(TextTable(header, busy))
    paused = [*_paused_rows(now), *_unnamed_rows(now)]
    if paused:
        tables.append(TextTable(("paused topic", "by", "for", "reason"), paused))
    if now.stranded:
        rows = [
            (
                str(each.shard),
                *_target(now, each.shard),
                "all" if each.position is None else str(each.position),
                each.reason,
            )
            for each in now.stranded
        ]
        tables.append(TextTable(("stranded in shard", *of, "position", "reason"), rows))
    if now.failures.worst:
        header = ("failed event", "shard", *of, "attempts", "next try", "error")
        tables.append(TextTable(header, list(_failure_rows(now))))
    return tables


def _summary(now: Status) -> Iterator[tuple[str, str]]:
    waiting = count_of(now.waiting.count, more=now.waiting.more)
    oldest = now.oldest_seconds
    yield "waiting", waiting if oldest is None else f"{waiting}, the oldest for {duration(oldest)}"
    failures = count_of(now.failures.count, more=now.failures.more)
    blocked = now.failures.blocked
    yield "failing", f"{failures}, {blocked} of them blocked" if blocked else failures
    yield "dead letters", count_of(now.dead_letters.count, more=now.dead_letters.more)
    leased = sum((shard.lease_seconds or 0) > 0 for shard in now.shards)
    idle = sum(map(_is_idle, now.shards))
    yield "shards", f"{len(now.shards)}, {leased} leased, {idle} idle"
    alive = f"{sum(seen.relays for seen in now.publishers)} alive"
    away = sum(seen.alive and not seen.relays for seen in now.publishers)
    yield "publishers", alive + (f", {away} waiting for the broker" if away else "")
    if now.jobs is not None:
        yield "old events", _jobs_text(now.jobs)


def _jobs_text(jobs: JobsStatus) -> str:
    """What was forgotten and erased, and when old events were last looked for."""
    counts = {"forgotten": jobs.forgotten, "erased": jobs.erased}
    parts = [f"{number:,} {verb}" for verb, number in counts.items() if number]
    if jobs.forgotten_before is not None:
        parts.append(f"kept since {jobs.forgotten_before:%Y-%m-%d}")
    if jobs.forgotten_seconds is not None:
        parts.append(f"complete {duration(jobs.forgotten_seconds)} ago")
    if jobs.running is not None:
        parts.append(f"{jobs.running} runs")
    return ", ".join(parts) or "never complete"


def _target_row(target: TargetStatus) -> tuple[str, ...]:
    oldest = target.oldest_seconds
    return (
        target.name,
        target.kind,
        filled_state(target.state, target.fill),
        count_of(target.waiting.count, more=target.waiting.more),
        "-" if oldest is None else duration(oldest),
        count_of(target.failing.count, more=target.failing.more),
        count_of(target.dead_letters.count, more=target.dead_letters.more),
    )


def _publisher_row(now: Status, seen: Seen) -> tuple[str, ...]:
    state = "yes" if seen.alive else f"no, seen {duration(seen.seen_seconds)} ago"
    if seen.alive and seen.waiting_seconds is not None:
        state = f"waits for its broker, {duration(seen.waiting_seconds)}"
    shards = sum(each.owner == seen.owner and (each.lease_seconds or 0) > 0 for each in now.shards)
    of = (seen.target or DEFAULT_TARGET,) if now.targets else ()
    return seen.owner, *of, str(shards), state


def _is_idle(shard: Shard) -> bool:
    """Whether no message waits in a shard, and its lease is not over."""
    return shard.oldest_seconds is None and (shard.owner is None or (shard.lease_seconds or 0) > 0)


def _target(now: Status, shard: int) -> tuple[str, ...]:
    """The cell with the target of a shard; none if there is no column for it."""
    return (now.target_of(shard) or "-",) if now.targets else ()


def _shard_row(now: Status, shard: Shard) -> tuple[str, ...]:
    oldest = shard.oldest_seconds
    is_over = shard.owner is not None and (shard.lease_seconds or 0) <= 0
    return (
        str(shard.shard),
        *_target(now, shard.shard),
        "-" if oldest is None else duration(oldest),
        (shard.owner or "-") + " (over)" * is_over,
    )


def _paused_rows(now: Status) -> Iterator[tuple[str, ...]]:
    """The topics that an operator has paused, then those that publishers have."""
    for topic in now.paused_topics:
        since, reason = duration(topic.paused_seconds), " ".join(topic.reason.split())
        of = f" of {topic.target}" if topic.target else ""
        yield topic.topic + of, topic.paused_by, since, reason
    for seen in now.publishers:
        for each in seen.paused if seen.alive else ():
            of = f" of {seen.target}" if seen.target else ""
            since = "-" if each.seconds is None else duration(each.seconds)
            yield each.topic + of, seen.owner, since, refusal_reason(each.by)


def _unnamed_rows(now: Status) -> Iterator[tuple[str, ...]]:
    """The numbers of topics that publishers have paused without naming them."""
    for seen in now.publishers:
        if seen.alive and seen.paused_more:
            yield f"and {seen.paused_more:,} more", seen.owner, "-", "as above"


def _failure_rows(now: Status) -> Iterator[tuple[str, ...]]:
    for found in now.failures.worst:
        retry = found.retry_seconds
        yield (
            str(found.event_id),
            str(found.shard),
            *_target(now, found.shard),
            str(found.attempts),
            "blocked" if retry is None else f"in {duration(retry)}",
            with_first_place(found.error),
        )


def count_of(count: int, *, more: bool) -> str:
    """A number, with ``+`` if there are more."""
    return f"{count}+" if more else str(count)


def text_of(tables: Sequence[TextTable]) -> str:
    """The tables as text that fits a terminal, with empty lines between them."""
    width = shown_width()
    return "\n\n".join("\n".join(columns((each.header, *each.rows), width)) for each in tables)
