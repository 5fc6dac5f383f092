"""A conflict report as text tables."""

from collections.abc import Iterator

from dsql_outbox.cli.output import counted, duration
from dsql_outbox.publisher import REMEDIES, ConflictReport, ContendedEntity

from .tables import Table


def conflict_tables(report: ConflictReport) -> list[Table]:
    """The totals, then the entities with their remedies, then the meaning of these."""
    tables = [Table(("conflicts", f"in the last {report.hours:g} h"), list(_totals(report)))]
    if report.entities:
        header = ("entity", "conflicts", "alone", "time lost", "given up", "last", "remedy")
        tables.append(Table(header, list(map(_row, report.entities))))
        named = {entity.remedy for entity in report.entities}
        rows = [(remedy, text) for remedy, text in REMEDIES.items() if remedy in named]
        tables.append(Table(("remedy", "what to do"), rows))
    return tables


def _totals(report: ConflictReport) -> Iterator[tuple[str, str]]:
    yield "transactions", f"{report.transactions:,}"
    yield "given up", counted(report.exhausted, "event")
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
