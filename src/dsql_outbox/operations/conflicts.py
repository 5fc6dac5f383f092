"""The conflicts that writers have reported, and the remedy for each entity."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from dsql_outbox.outbox.contention import EntityConflicts, WriterConflicts, decode_conflicts
from dsql_outbox.outbox.errors import SettingsError

from .tool import Operator

Remedy = Literal["coalesce", "split", "separate", "reorder", "none"]

REMEDIES: Final[Mapping[Remedy, str]] = {
    "coalesce": "Its own events conflict with each other. Write them with "
    "AsyncWriter and WriterSettings(coalesce=4), which put them into one transaction.",
    "split": "Its own events conflict although their writers coalesce: several processes write "
    "them. Send them to one process, or split the entity into several.",
    "separate": "Its events touch other entities too, and hold them up. Write its change as an "
    "event of its own, or touch fewer entities per event.",
    "reorder": "It conflicts in transact. Do reads and slow work before transact, and append "
    "its event last, so that the transaction is short.",
    "none": "It conflicts together with an entity that conflicts more often. Treat that one first.",
}
"""The meaning of each remedy."""


def remedy_of(counts: EntityConflicts) -> Remedy:
    """Return the remedy for the kind of transaction in which the entity conflicts most."""
    half = counts.conflicts / 2
    if counts.behind > half:
        return "none"
    if counts.transact > half:
        return "reorder"
    if counts.joint > half:
        return "separate"
    return "split" if counts.coalesced > half else "coalesce"


MAX_HOURS: Final = 24.0
"""The age in hours after which writers delete reports."""

_ROWS: Final = 100
_SHOWN: Final = 50


class ContendedEntity(EntityConflicts, kw_only=True, omit_defaults=False):
    """An entity that conflicts, by the counts of all writers, and its remedy."""

    remedy: Remedy


class ConflictReport(msgspec.Struct, frozen=True, rename="camel"):
    """The losses of writers to conflicts in the last hours.

    `writers` is the number of processes that reported. `transactions` ended in a conflict,
    `exhausted` events were given up, and `lost_seconds` is the time of those transactions and
    of the waits after them. `is_partial` means that entities with few conflicts are left out.
    """

    hours: float
    writers: int
    transactions: int
    exhausted: int
    lost_seconds: float
    is_partial: bool
    entities: tuple[ContendedEntity, ...]


class ConflictReader(Operator):
    """Reads the conflict reports that writers store.

    The constructor does no I/O. Use ``async with`` or call `close`.
    """

    async def read(self, *, hours: float = 1.0) -> ConflictReport:
        """Add up the reports of the last hours: at most 100 processes, and 50 entities.

        A writer process starts another report every hour, so the counts may begin up to an
        hour earlier. Raises `SettingsError` unless `hours` is above 0 and at most 24,
        `SchemaError` if the table is missing, and the driver's errors.
        """
        if not 0 < hours <= MAX_HOURS:
            raise SettingsError(f"hours must be above 0 and at most {MAX_HOURS:g}, got {hours}")
        rows = await self._session.fetch_rows(
            "conflicts_recent", {"seconds": hours * 3600}, rows=_ROWS
        )
        return _report(hours, rows)


def _report(hours: float, rows: Sequence[Sequence[Any]]) -> ConflictReport:
    reports = list(_decoded(rows))
    merged = _merged(reports)
    merged.sort(key=lambda found: (found.conflicts, found.alone), reverse=True)
    left_out = len(rows) == _ROWS or len(merged) > _SHOWN
    return ConflictReport(
        hours=hours,
        writers=len(reports),
        transactions=sum(report.transactions for report in reports),
        exhausted=sum(report.exhausted for report in reports),
        lost_seconds=round(sum(report.lost_seconds for report in reports), 3),
        is_partial=left_out or any(report.is_partial for report in reports),
        entities=tuple(map(_contended, merged[:_SHOWN])),
    )


def _decoded(rows: Iterable[Sequence[Any]]) -> Iterator[WriterConflicts]:
    """Yield the reports, with times up to now. Skip one that another version wrote differently."""
    for age, text in rows:
        try:
            report = decode_conflicts(text)
        except msgspec.MsgspecError:
            continue
        for entity in report.entities:
            entity.seen_seconds += max(0.0, age)
        yield report


def _merged(reports: Iterable[WriterConflicts]) -> list[EntityConflicts]:
    """Return one sum per entity."""
    sums: dict[tuple[str, str], EntityConflicts] = {}
    for report in reports:
        for entity in report.entities:
            key = entity.entity_type, entity.entity_id
            sums[key] = _sum(sums[key], entity) if key in sums else entity
    return list(sums.values())


def _sum(one: EntityConflicts, other: EntityConflicts) -> EntityConflicts:
    return EntityConflicts(
        entity_type=one.entity_type,
        entity_id=one.entity_id,
        conflicts=one.conflicts + other.conflicts,
        alone=one.alone + other.alone,
        behind=one.behind + other.behind,
        joint=one.joint + other.joint,
        transact=one.transact + other.transact,
        coalesced=one.coalesced + other.coalesced,
        exhausted=one.exhausted + other.exhausted,
        lost_seconds=one.lost_seconds + other.lost_seconds,
        seen_seconds=min(one.seen_seconds, other.seen_seconds),
    )


def _contended(counts: EntityConflicts) -> ContendedEntity:
    values = msgspec.structs.asdict(counts)
    values["lost_seconds"] = round(counts.lost_seconds, 3)
    values["seen_seconds"] = round(counts.seen_seconds, 3)
    return ContendedEntity(**values, remedy=remedy_of(counts))
