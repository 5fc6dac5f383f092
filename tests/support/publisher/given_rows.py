"""Outbox rows for tests that need no database."""

from uuid import UUID

from dsql_outbox.publisher.relay.store import RangeRead
from dsql_outbox.schema.outbox_rows import OutboxRow


def rows_in(found: RangeRead) -> list[OutboxRow]:
    """The rows of one range of a read."""
    return [OutboxRow.read(each) for each in found.rows]


def row(
    subject: str,
    position: int,
    *,
    previous: int = 0,
    topic: str = "t",
    headers: str = "{}",
    payload: str = "{}",
    waits: bool | None = None,
) -> OutboxRow:
    """A row of a car; `waits` says whether the predecessor is in its snapshot."""
    return OutboxRow(
        shard=0,
        position=position,
        event_id=str(UUID(int=max(0, position))),
        previous_position=previous,
        subject_type="Car",
        subject_id=subject,
        subject_version=1,
        topic=topic,
        headers=headers,
        payload=payload,
        created_us=0,
        predecessor=previous > 0 if waits is None else waits,
    )


def chain(subject: str, positions: list[int], **about: str) -> list[OutboxRow]:
    """The rows of one subject, each pointing at the one before, all still there."""
    return [
        row(subject, position, previous=before, topic=about.get("topic", "t"))
        for before, position in zip([0, *positions], positions, strict=False)
    ]
