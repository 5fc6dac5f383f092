"""Archives of stored events, and where the bytes of each event are."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from dsql_outbox.operations.life.archive import ArchiveProgress
from dsql_outbox.operations.life.archives import Archives
from dsql_outbox.operations.life.forget import ForgetProgress
from dsql_outbox.operations.life.retention import Retention
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.archive_reader import ArchiveReader

FACTS = (
    "number, file, events, first_id, last_id, oldest_at, newest_at, file_size, sha256,"
    " content_sha256"
)


def later() -> datetime:
    """A time after every event."""
    return datetime.now(UTC) + timedelta(days=1)


async def archive(
    database: Database, to: object, before: datetime | None = None, **settings: Any
) -> ArchiveProgress:
    """Archive all that can be, and return what was done."""
    async with Archives(database) as tool:
        return await tool.archive(before or later(), str(to), **settings)


async def forget(
    database: Database, *places: object, before: datetime | None = None, **settings: Any
) -> ForgetProgress:
    """Forget all that can be, and return what was done."""
    async with Retention(database) as tool:
        return await tool.forget(before or later(), archive=[*map(str, places)], **settings)


def texts(sql: psycopg.Connection, *places: object) -> dict[UUID, str]:
    """The bytes of each stored event from the one place where they are.

    Fails if an event has no such place or two, a file holds an event that is not its own, or a row
    names an event whose bytes are gone.
    """
    reader = ArchiveReader(map(str, places))
    files = {row[0]: row for row in sql.execute(f"SELECT {FACTS} FROM outbox.outbox_archives")}  # type: ignore[arg-type]
    found: dict[UUID, str] = {}
    in_files: dict[int, int] = dict.fromkeys(files, 0)
    rows = sql.execute("SELECT id, event_data::text, archive FROM outbox.business_events")
    for event_id, text, number in rows.fetchall():
        if number is None:
            assert text is not None, f"event {event_id} has no bytes"
            found[event_id] = text
            continue
        assert text is None
        facts = ArchiveFile(*(), **dict(zip(FACTS.split(", "), files[number], strict=True)))
        found[event_id] = reader.event(event_id, facts, str(places[0])).event
        in_files[number] += 1
    assert in_files == {number: row[2] for number, row in files.items()}
    assert named_without_bytes(sql) == []
    return found


def named_without_bytes(sql: psycopg.Connection) -> Sequence[Any]:
    """The events whose bytes are gone, and which a row names without bytes of its own."""
    return sql.execute(
        """SELECT b.id FROM outbox.business_events b WHERE b.event_data IS NULL AND (
            EXISTS (SELECT FROM outbox.outbox o WHERE o.event_id = b.id AND o.payload IS NULL)
            OR EXISTS (SELECT FROM outbox.dead_letters d WHERE d.event_id = b.id))"""
    ).fetchall()
