"""The bytes of archived events, for messages that are made of them again."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from anyio import to_thread

from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.archive_reader import ArchiveReader
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.session import SessionTransaction


class ArchivedTexts:
    """Reads archived events from the given places, a folder or ``s3://BUCKET/PREFIX`` each.

    Raises `SettingsError` for the name of a place, and `MissingExtra`.
    """

    def __init__(self, archive: str | Iterable[str] | None) -> None:
        self._reader = ArchiveReader(archive)

    async def read(
        self, transaction: SessionTransaction, ids: Collection[UUID]
    ) -> Mapping[UUID, ArchivedEvent]:
        """The events, by their ids; the transaction has locked them, so they stay in their files.

        Raises `EventArchived` if no place was given, and `ArchiveError`.
        """
        if not ids:
            return {}
        rows = await transaction.fetch_rows("archived_events", {"event_ids": array_literal(ids)})
        return await to_thread.run_sync(partial(self._read, rows))

    def _read(self, rows: Iterable[Sequence[Any]]) -> Mapping[UUID, ArchivedEvent]:
        found: dict[UUID, ArchivedEvent] = {}
        # Neighbours share a file.
        for event_id, place, *facts in sorted(rows, key=lambda row: row[2]):
            file = ArchiveFile.from_columns(facts)
            found[event_id] = self._reader.event(event_id, file, place)
        return found
