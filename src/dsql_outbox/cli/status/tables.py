"""A status and a conflict report as text tables."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from dsql_outbox.cli.output import counted, filled_state, without_places
from dsql_outbox.observability.shown_text import duration, visible
from dsql_outbox.operations.attention import REFUSED
from dsql_outbox.operations.conflicts import REMEDIES, ConflictReport, ContendedEntity
from dsql_outbox.operations.status import ArchiveStatus, Seen, Shard, Status, TargetStatus

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_COUNTS: Final = ("waiting", "oldest", "failing", "dead letters")
_TARGET: Final = ("target", "kind", "state", *_COUNTS, "paused")


class TextTable(NamedTuple):
    """A table of texts; each row is as long as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables_of(now: Status, *more: tuple[str, str]) -> list[TextTable]:
    """The summary, extended by the lines `more`, then one table per kind that has rows."""
    tables = [TextTable(("outbox", f"schema {now.schema}"), [*_summary(now), *more])]
    if now.targets:
        tables.append(TextTable(_TARGET, list(map(_target_row, now.targets))))
    if now.publishers:
        tables.append(
            TextTable(("publisher", "alive", "seen"), list(map(_publisher_row, now.publishers)))
        )
    shards = [
        _shard_row(now, shard)
        for shard in now.shards
        if shard.oldest_seconds is not None or shard.owner is not None
    ]
    if shards:
        tables.append(TextTable(("shard", "oldest", "leased by", "lease ends in"), shards))
    paused = [*_paused_rows(now), *_unnamed_rows(now)]
    if paused:
        tables.append(TextTable(("paused topic", "by", "for", "reason"), paused))
    if now.stranded:
        rows = [
            (now.shard_name(s.shard), "all" if s.position is None else str(s.position), s.reason)
            for s in now.stranded
        ]
        tables.append(TextTable(("stranded in shard", "position", "reason"), rows))
    if now.failures.worst:
        header = ("failed event", "shard", "attempts", "next try", "error")
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
    yield "shards", f"{len(now.shards)}, {leased} leased"
    alive = f"{sum(seen.relays for seen in now.publishers)} alive"
    away = sum(seen.alive and not seen.relays for seen in now.publishers)
    yield "publishers", alive + (f", {away} waiting for the broker" if away else "")
    if now.archive is not None:
        yield "archive", _archive_text(now.archive)


def _archive_text(archive: ArchiveStatus) -> str:
    """What was archived, and when the last job was complete."""
    counts = {
        "archived": archive.archived,
        "erased": archive.erased,
        "forgotten": archive.forgotten,
    }
    parts = [f"{number:,} {verb}" for verb, number in counts.items() if number]
    if archive.complete_seconds is not None:
        parts.append(f"complete {duration(archive.complete_seconds)} ago")
    if archive.oldest_at is not None:
        parts.append(f"the oldest event here is of {archive.oldest_at:%Y-%m-%d}")
    if archive.running is not None:
        parts.append(f"{archive.running} runs")
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
        "-" if target.paused is None else " ".join(target.paused.split()) or "yes",
    )


def _publisher_row(seen: Seen) -> tuple[str, ...]:
    owner = f"{seen.owner} of {seen.target}" if seen.target else seen.owner
    state = "yes" if seen.alive else "no"
    if seen.alive and seen.waiting_seconds is not None:
        state = f"waits for its broker, {duration(seen.waiting_seconds)}"
    return owner, state, f"{duration(seen.seen_seconds)} ago"


def _shard_row(now: Status, shard: Shard) -> tuple[str, ...]:
    oldest, ends = shard.oldest_seconds, shard.lease_seconds
    return (
        now.shard_name(shard.shard),
        "-" if oldest is None else duration(oldest),
        shard.owner or "-",
        "-" if ends is None else duration(ends) if ends > 0 else "over",
    )


def paused_count(now: Status) -> str:
    """How many topics an operator or a living publisher has paused."""
    names = {row[0] for row in _paused_rows(now)}
    return count_of(len(names), more=any(_unnamed_rows(now)))


def _paused_rows(now: Status) -> Iterator[tuple[str, ...]]:
    """The topics that an operator has paused, then those that publishers have."""
    for topic in now.paused_topics:
        since, reason = duration(topic.paused_seconds), " ".join(topic.reason.split())
        of = f" of {topic.target}" if topic.target else ""
        yield topic.topic + of, topic.paused_by, since, reason
    for seen in now.publishers:
        for name in seen.paused if seen.alive else ():
            of = f" of {seen.target}" if seen.target else ""
            yield name + of, seen.owner, "-", REFUSED


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
            now.shard_name(found.shard),
            str(found.attempts),
            "blocked" if retry is None else f"in {duration(retry)}",
            without_places(found.error),
        )


def count_of(count: int, *, more: bool) -> str:
    """A number, with ``+`` if there are more."""
    return f"{count}+" if more else str(count)


def rich(table: TextTable) -> "RichTable":
    """The table for a terminal."""
    from rich.table import Table as RichTable  # noqa: PLC0415 - 60 ms, for terminals only
    from rich.text import Text  # noqa: PLC0415 - for terminals only

    shown = RichTable(*table.header, box=None, pad_edge=False, header_style="bold")
    for row in table.rows:
        shown.add_row(
            *(Text(visible(cell)) for cell in row)
        )  # as Text, not str: rich would interpret an error that looks like markup
    return shown


def conflict_tables(report: ConflictReport) -> list[TextTable]:
    """The totals, then the entities with their remedies, then the meaning of these."""
    tables = [TextTable(("conflicts", f"in the last {report.hours:g} h"), list(_totals(report)))]
    if report.entities:
        header = ("entity", "conflicts", "alone", "time lost", "exhausted", "last", "remedy")
        tables.append(TextTable(header, list(map(_row, report.entities))))
        named = {entity.remedy for entity in report.entities}
        rows = [(remedy, text) for remedy, text in REMEDIES.items() if remedy in named]
        tables.append(TextTable(("remedy", "what to do"), rows))
    return tables


def _totals(report: ConflictReport) -> Iterator[tuple[str, str]]:
    yield "transactions", f"{report.transactions:,}"
    yield "exhausted", counted(report.exhausted, "event")
    yield "time lost", duration(report.lost_seconds)
    yield "reported by", counted(report.writers, "report") + " of writers"
    if report.is_partial:
        yield "left out", "entities with few conflicts"


def _row(entity: ContendedEntity) -> tuple[str, ...]:
    return (
        f"{entity.entity_type}/{entity.entity_id}",
        f"{entity.conflicts:,}",
        f"{entity.alone:,}",
        duration(entity.lost_seconds),
        f"{entity.exhausted:,}",
        f"{duration(entity.seen_seconds)} ago",
        entity.remedy,
    )
